"""Takes the docs' pictures of the page: `python -m tests.make_page_pictures [FOLDER]`.

From a real daemon with both demo models, in Chromium, light and dark, at the sizes of a desk and of
a phone.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.e2e import browser
from tests.e2e.browser import Browser
from tests.e2e.conftest import RealDaemon, check_end
from tests.e2e.test_page import GGUF, HF, answered, choose, enter, row, say, write_echo

FOLDER = Path(__file__).parents[1] / "docs" / "pictures"
SIZES = {"1280": (1280, 800), "390": (390, 844)}
WRITTEN = """The weights of a layer are read once for each token, so **memory bandwidth** decides:

| Weights | Bits | Size of 7B |
|---|---|---|
| `F16` | 16 | 14 GB |
| `Q8_0` | 8.5 | 7.5 GB |
| `Q4_K_M` | 4.8 | 4.4 GB |

```python
tokens_per_s = bandwidth / size
```
"""


def take(page: Browser, daemon: RealDaemon, folder: Path) -> None:
    """Talk a little, then take the four pictures."""
    enter(page, daemon)
    for model in (GGUF, HF):
        page.click(f'{row(model, "available")} [data-part="act"]')
        page.find(row(model, "loaded"))
    choose(page, GGUF)
    say(page, "Who are you?")
    answered(page, 1)
    choose(page, "writer")
    say(page, "Why are smaller weights faster?")
    answered(page, 2)
    page.click(f'{row("large")} [data-part="act"]')
    page.find(row("large", "loading"))
    part = "return Number(document.querySelector('.progress')?.getAttribute('aria-valuenow'))"
    page.until(lambda: page.run(part) >= 30, "a part of the load")
    for scheme, suffix in (("light", ""), ("dark", "-dark")):
        # Without motion a picture needs no wait for it.
        wanted = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in wanted.items()]
        page.devtools("Emulation.setEmulatedMedia", features=features)
        for size, (width, height) in SIZES.items():
            page.resize(width, height)
            page.run(
                "document.activeElement.blur(); show('chat'); $('list').scrollTop = 0;"
                "$('talk').scrollTop = $('talk').scrollHeight;"
            )
            page.picture(folder / f"page-{size}{suffix}.png")


def main() -> None:
    """Take them all."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory, browser.browser() as page:
        daemon = RealDaemon(Path(directory), HYBRIDD_HTTP_LISTEN="127.0.0.1:0")
        write_echo(daemon, "writer", reply=WRITTEN, token_delay_s=0.02)
        write_echo(daemon, "large", load_s=40, load_steps=400, weights_bytes=6 * 2**30)
        daemon.start()
        page.resize(*SIZES["1280"])
        try:
            take(page, daemon, folder)
        finally:
            check_end(daemon)


if __name__ == "__main__":
    main()
