"""Write the pages anew: ``python -m fedunlearn.manual``, in the folder that docs/ is in."""

from pathlib import Path

from fedunlearn.manual import routines, strategies

PAGES = {"unlearning.md": routines.page, "strategies.md": strategies.page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (Path("docs") / name).write_text(page(), encoding="utf-8")
