"""Commands for the documentation site; `make docs` calls `stage` and `check`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import site_check
import site_commands
import site_diagrams
import site_gallery
import site_look
import site_notebook
import site_pages

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python tools/documentation", description=__doc__)
    words = parser.add_subparsers(dest="word", required=True)
    words.add_parser("stage", help="collect all pages in build/docs")
    checker = words.add_parser("check", help="links, anchors and foreign hosts of the built site")
    checker.add_argument("site", type=Path, nargs="?", default=ROOT / "site")
    looker = words.add_parser("look", help="visit the built site in a browser; take pictures")
    looker.add_argument("out", type=Path, help="folder for the pictures")
    words.add_parser("commands", help=f"write {site_commands.PAGE}")
    words.add_parser("notebook", help=f"run {site_notebook.NOTEBOOK} and keep its outputs")
    drawer = words.add_parser("diagrams", help="draw the mermaid blocks that have changed")
    drawer.add_argument("--mermaid", type=Path, required=True, help="mermaid.min.js of the npm package")
    pictures = words.add_parser("gallery", help="pictures of the front page and of all decoders")
    pictures.add_argument("runs", type=Path, nargs="?", help="folder with a run of each decoder")
    arguments = parser.parse_args()
    if arguments.word == "stage":
        try:
            print(f"{len(site_pages.stage())} pages in {site_pages.STAGE.relative_to(ROOT)}")
        except (site_pages.BrokenLinksError, site_diagrams.StaleDiagramError) as error:
            print(error, file=sys.stderr)
            return 1
    elif arguments.word == "check":
        found = site_check.mistakes(arguments.site)
        print("\n".join(found) or "Every link leads somewhere; no page fetches from another host.")
        return bool(found)
    elif arguments.word == "look":
        found = site_look.look(ROOT / "site", arguments.out)
        print("\n".join(found) or "No message on any console, and no request to another host.")
        return bool(found)
    elif arguments.word == "commands":
        print(site_commands.write(ROOT).relative_to(ROOT))
    elif arguments.word == "notebook":
        site_notebook.execute(ROOT)
    elif arguments.word == "gallery":
        print("\n".join(map(str, site_gallery.make(ROOT, arguments.runs))))
    else:
        print("\n".join(map(str, site_diagrams.draw(ROOT, arguments.mermaid))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
