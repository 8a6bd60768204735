"""The pages that are written by hand, README and docs, with their links mended for the site."""

import os
import re
import shutil
from collections.abc import Collection
from pathlib import Path

from gradest.errors import UsageError

FRONT = "README.md"
# Pages in the order of the contents; a page of docs/ that is not named here is an error.
SECTIONS = {
    "Choose": ["choose", "docs/choosing", "docs/policy-gradients"],
    "Results": ["atlas", "estimators/index", "tasks/index", "claims"],
    "Use": [
        "docs/using",
        "docs/notebook",
        "docs/suites",
        "docs/comparing",
        "docs/training",
        "docs/clusters",
    ],
    "Understand": ["docs/reading", "docs/measurement", "docs/claims", "docs/published"],
    "Extend": ["docs/plugins", "docs/audit", "examples/README", "examples/package/README"],
    "Project": ["results/README", "CONTRIBUTING", "CHANGELOG"],
}
_LINK = re.compile(r"\[([^\[\]]*)\]\((?!https?:|mailto:|#)([^)#\s]+)((?:#[^)\s]*)?)\)")
_PICTURE = re.compile(  # an image with another one for a dark background, as forges take them
    r'<picture>\s*<source media="[^"]*" srcset="([^"]+)">\s*<img src="([^"]+)"[^>]*'
    r'alt="([^"]*)">\s*</picture>'
)
_CATALOGUE = re.compile(r"^\| `(\w+)`", flags=re.M)


def write(root: Path, source: Path) -> None:
    """Copies of the pages below `root`, with the files that they link to.

    Raises UsageError for a page of docs/ that no section of the contents has, and for a link to a
    file that does not exist.
    """
    listed = {page for pages in SECTIONS.values() for page in pages}
    written = sorted(str(p.relative_to(root).with_suffix("")) for p in root.glob("docs/*.md"))
    if missing := [page for page in written if page not in listed]:
        raise UsageError(f"tools/site/documents.py: SECTIONS lacks {', '.join(missing)}")
    for page in sorted(p for p in listed if (root / f"{p}.md").is_file()):
        text = (root / f"{page}.md").read_text(encoding="utf-8")
        _write(source / f"{page}.md", mended(text, f"{page}.md", root, source))


def front(root: Path, source: Path, estimators: Collection[str]) -> str:
    """The text of README.md, with a link to the page of each estimator of the catalogue."""
    text = mended((root / FRONT).read_text(encoding="utf-8"), FRONT, root, source)
    return _CATALOGUE.sub(
        lambda m: f"| [`{m[1]}`](estimators/{m[1]}.md)" if m[1] in estimators else m[0], text
    )


def mended(text: str, page: str, root: Path, source: Path) -> str:
    """The text with links that lead somewhere on the site; files they name are copied along.

    A link to README.md is one to the front page, one to a folder is one to its README, or to an
    archive of the folder.  Raises UsageError, naming the page, for one that leads nowhere.
    """

    def new(match: re.Match[str]) -> str:
        target = os.path.normpath(Path(page).parent / match[2])
        path = root / target
        if not path.exists():
            raise UsageError(f"{page}: the link {match[2]} leads nowhere")
        if target == FRONT:
            target = "index.md"
        elif path.is_dir() and (path / "README.md").is_file():
            target = f"{target}/README.md"
        elif path.is_dir():
            target = _archive(path, target, source)
        elif path.suffix != ".md":
            (source / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, source / target)
        # The name of a file means little on a site: without a text, MyST shows the page's title.
        text = "" if match[1].endswith(".md") else match[1]
        return f"[{text}]({os.path.relpath(target, Path(page).parent)}{match[3]})"

    def both(match: re.Match[str]) -> str:
        dark, light, words = match.groups()
        parts = []
        for image, ground in ((light, "light"), (dark, "dark")):
            path = root / Path(page).parent / image
            if not path.is_file():
                raise UsageError(f"{page}: the image {image} does not exist")
            copied = source / Path(page).parent / image
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copied)
            parts.append(f"```{{image}} {image}\n:alt: {words}\n:class: only-{ground}\n```")
        return "\n\n".join(parts)

    return _PICTURE.sub(both, _LINK.sub(new, text))


def _archive(folder: Path, target: str, source: Path) -> str:
    """A folder as a ZIP file, for readers who have no clone."""
    (source / target).parent.mkdir(parents=True, exist_ok=True)
    return os.path.relpath(shutil.make_archive(str(source / target), "zip", folder), source)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
