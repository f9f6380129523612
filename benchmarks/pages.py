"""What a reader waits for in a real browser: the first move of each slider, and an index of many runs.

    python benchmarks/pages.py                      about 10 minutes on an idle core: notebooks at their default size
    python benchmarks/pages.py --profile smoke 00   to see that it works; nothing is written

Each notebook with controls is run in JupyterLab (Debian's chromium). Then each control of each figure is moved for the
first time, by keyboard, and the time from the key to the new picture on the screen is taken: the aim is 100 ms. An
index of 1,000 runs with pictures is opened at 1,280 and at 390 pixels, unfolded, sorted and filtered. Results go to
benchmarks/results/pages.json.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from playwright.sync_api import Browser, Locator, Page

from frugal.files import CHECKOUT, write_text
from frugal.lab.pages.index import write_index
from frugal.lab.run.execution import plan_run, with_parameters
from frugal.lab.run.parameters import PROFILES
from frugal.lab.run.provenance import provenance

sys.path.append(str(CHECKOUT / "tests"))
from browser import chromium, errors, jupyter_lab, lay_out, run_all, shut_down
from executed_notebooks import code, figure, notebook, recorded, save, text

RESULTS = Path(__file__).parent / "results" / "pages.json"
RUNS, WIDTHS = 1000, (1280, 390)
# Looks at every frame whether the figure, its picture loaded, is another one than before the key was pressed.
WATCH = """(box) => {
  const figure = () => box.querySelector('figure')?.innerHTML;
  const before = figure();
  window.took = undefined;
  box.addEventListener('keydown', () => {
    const begun = performance.now();
    const look = () => {
      const image = box.querySelector('figure img');
      if (figure() !== before && image && image.complete && image.naturalWidth) window.took = performance.now() - begun;
      else requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
  }, { capture: true, once: true });
}"""
PAINTED = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
TIMED = """async (act) => {
  const begun = performance.now();
  eval(act);
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  return performance.now() - begun;
}"""
ACTS = {
    "unfold": "document.querySelector('.earlier').open = true",
    "sort": "document.querySelector('.earlier th button').click()",
    "filter": "const box = document.getElementById('filter'); box.value = 'units = 7';"
    " box.dispatchEvent(new Event('input'))",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="beginnings of notebooks' names [default: all with controls]")
    parser.add_argument("--profile", choices=PROFILES, default="default")
    arguments = parser.parse_args()
    paths = [path for path in sorted((CHECKOUT / "notebooks").glob("*.ipynb")) if "explore(" in path.read_text()]
    chosen = [path for path in paths if path.name.startswith(tuple(arguments.names or [""]))]
    with chromium() as browser, tempfile.TemporaryDirectory() as folder:
        moves = first_moves(browser, Path(folder), chosen, arguments.profile)
        found = {"first_moves_ms": moves, "index": index_of_many(browser, Path(folder) / "reports")}
    about = {key: value for key, value in provenance().items() if key in ("commit", "clean", "machine")}
    print(json.dumps(found["index"], indent=2))
    if arguments.profile == "default" and not arguments.names:
        write_text(RESULTS, json.dumps({**about, "load": round(os.getloadavg()[0], 1), **found}, indent=2) + "\n")


def first_moves(browser: Browser, folder: Path, paths: list[Path], profile: str) -> list[dict[str, Any]]:
    """Milliseconds of the first move of each control of each figure."""
    rows = []
    for path in paths:
        nbformat.write(with_parameters(plan_run(path, profile=profile)), folder / path.name)
    with jupyter_lab(folder) as address:
        for path in paths:
            lay_out(folder)
            page = browser.new_page(viewport={"width": 1280, "height": 1400})
            run_all(page, address, path.name, minutes=20)
            if found := errors(page):
                raise SystemExit(f"{path.name}: {found}")
            for box in page.locator(".jupyter-widgets.widget-vbox", has=page.locator("figure")).all():
                for control in box.locator(".noUi-handle, select, input[type=checkbox]").all():
                    rows.append({"notebook": path.stem, **first_move(page, box, control)})
                    print(rows[-1], flush=True)
            shut_down(page)
            page.close()
    return rows


def first_move(page: Page, box: Locator, control: Locator) -> dict[str, Any]:
    """Move a control by one step, away from the end that it stands at."""
    row = control.locator("xpath=ancestor::*[contains(@class, 'widget-inline-hbox')][1]")
    box.evaluate(WATCH)
    at_the_end = control.get_attribute("aria-valuenow") == control.get_attribute("aria-valuemax")
    tag = control.evaluate("(control) => control.tagName")
    control.press("Space" if tag == "INPUT" else "ArrowDown" if tag == "SELECT" or at_the_end else "ArrowUp")
    page.wait_for_function("window.took !== undefined")
    return {"control": " ".join((row.text_content() or "").split()), "ms": round(page.evaluate("window.took"))}


def index_of_many(browser: Browser, reports: Path) -> dict[str, Any]:
    """Milliseconds to open an index of runs of one notebook, and to use it."""
    drawn = figure()
    for number in range(RUNS):
        run = {"started": f"2025-03-{1 + number // 60:02d}T12:{number % 60:02d}:00+00:00", "seconds": 3.7 * number}
        run |= {"parameters": {"units": number, "text": "tales", "seed": 0}, "changed": ["units"]}
        cells = [text("# Echo\n\nWhat it is about."), code(outputs=[drawn, recorded(bits_per_byte=1 + number / RUNS)])]
        save(notebook(*cells, run=run), reports / "runs" / "01_echo" / f"{number:04d}" / "notebook.ipynb")
    address, found = write_index(reports), {}
    for width in WIDTHS:
        page = browser.new_page(viewport={"width": width, "height": 844})
        page.goto(address.as_uri())
        page.evaluate(PAINTED)
        opened = page.evaluate("performance.now()")
        used = {name: round(page.evaluate(TIMED, act)) for name, act in ACTS.items()}
        sideways = page.evaluate("document.documentElement.scrollWidth") > width
        found[f"{width} pixels"] = {"open": round(opened), **used, "scrolls_sideways": sideways}
        page.close()
    return {"runs": RUNS, "megabytes": round(address.stat().st_size / 1e6, 1), "milliseconds": found}


if __name__ == "__main__":
    main()
