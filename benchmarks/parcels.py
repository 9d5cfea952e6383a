"""Weigh what the Ray engine puts into the object store, from outside: it does not count by itself."""

from __future__ import annotations

from typing import Any

from fedunlearn.federation.ray_engine import trainer


class Scale:
    """Counts the bytes of every parcel that the driver packs and unpacks in rounds, from now on."""

    def __init__(self) -> None:
        self.bytes = 0
        pack, unpack = trainer.pack, trainer.unpack

        def weighed(content: Any, **options: Any) -> Any:
            parcel = pack(content, **options)
            self.bytes += parcel.num_bytes
            return parcel

        def weighed_back(parcel: Any, **options: Any) -> Any:
            self.bytes += parcel.num_bytes
            return unpack(parcel, **options)

        self._originals = (pack, unpack)
        trainer.pack, trainer.unpack = weighed, weighed_back

    def close(self) -> None:
        """Count no longer."""
        trainer.pack, trainer.unpack = self._originals
