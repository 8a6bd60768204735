"""The README's catalogue, written from the classes and their docstrings: `make readme`.

The picture of all verdicts is drawn again, too, if there are reference results that it shows.
"""

from pathlib import Path

from gradest.commands import list
from gradest.plugins.registry import Registry, all_estimators
from gradest.runs import read_manifest, references_folder
from tools import verdict_matrix
from tools.markers import replaced

README = Path(__file__).parent.parent / "README.md"
BEGIN = "<!-- catalogue: `make readme` writes what follows -->\n"
END = "<!-- end of the catalogue -->\n"


def main() -> None:
    text = updated(README.read_text(encoding="utf-8"))
    if verdict_matrix.SUITE in read_manifest(references_folder()):
        verdict_matrix.write_pictures()
        text = verdict_matrix.show_in_readme(text)
    README.write_text(text, encoding="utf-8")


def updated(text: str) -> str:
    """The text with the table of today between its markers.

    Raises ValueError unless each marker is there once, in order.
    """
    return replaced(text, BEGIN, END, f"\n{_table()}\n\n")


def _table() -> str:
    """What is installed beside the catalogue is another's to document."""
    own = {name: found for name, found in all_estimators().items() if list.built_in(found)}
    return list.markdown_table(Registry(estimators=own))


if __name__ == "__main__":
    main()
