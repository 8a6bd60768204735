"""The benchmark's command line: `python benchmark.py --suite variance`."""

from gradest.cli import run

if __name__ == "__main__":
    run()
