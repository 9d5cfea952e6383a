"""``python -m fedunlearn.cli``."""

from fedunlearn.cli.main import main

if __name__ == "__main__":
    main()
