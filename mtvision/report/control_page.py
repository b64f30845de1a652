"""A page on which budget and preference of a conditional network are moved, with panels made beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from mtvision.runtime.atomic import write_text

_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
fieldset { border: 1px solid #ccc; border-radius: .4rem; display: inline-block; margin: 0 1rem 1rem 0; }
label { margin-right: 1rem; } img { max-width: 100%; } output { font-variant-numeric: tabular-nums; }
input[type=range] { width: 18rem; vertical-align: middle; }
table { border-collapse: collapse; margin: 1rem 0; } td, th { padding: .2rem .8rem; text-align: right; }
th { border-bottom: 1px solid #999; } .shot { display: none; } .shot.on { display: block; }
</style>
<h1>{{ title }}</h1>
<p>{{ note }}</p>
<fieldset><legend>{{ slider }}</legend>
<input id="budget" type="range" min="0" max="{{ budgets|length - 1 }}" step="1"
 value="{{ budgets|length - 1 }}" aria-label="{{ slider }}">
<output id="share"></output></fieldset>
<fieldset><legend>{{ choice }}</legend>
{% for name in preferences %}<label><input type="radio" name="preference" value="{{ loop.index0 }}"
{% if loop.first %}checked{% endif %}> {{ name }}</label>{% endfor %}</fieldset>
{% for shot in shots %}<section class="shot" data-budget="{{ shot.budget }}"
 data-preference="{{ shot.preference }}" data-share="{{ shot.share }}">
<table><tr>{% for name in shot.facts %}<th>{{ name }}</th>{% endfor %}
{% for name in shot.scores %}<th>{{ name }}</th>{% endfor %}</tr>
<tr>{% for value in shot.facts.values() %}<td>{{ value }}</td>{% endfor %}
{% for value in shot.scores.values() %}<td>{{ value }}</td>{% endfor %}</tr></table>
{% for picture in shot.pictures %}<img alt="image and predictions" src="data:image/jpeg;base64,{{ picture }}">
{% endfor %}</section>
{% endfor %}
<script>
const slider = document.getElementById("budget"), share = document.getElementById("share");
function show() {
  const preference = document.querySelector("input[name=preference]:checked").value;
  for (const shot of document.querySelectorAll(".shot")) {
    const on = shot.dataset.budget === slider.value && shot.dataset.preference === preference;
    shot.classList.toggle("on", on);
    if (on) share.textContent = shot.dataset.share;
  }
}
document.addEventListener("input", show);
show();
</script>
</html>
"""


def control_page(
    title: str,
    note: str,
    budgets: Sequence[float],
    preferences: Sequence[str],
    shots: Sequence[Mapping[str, Any]],
    *,
    slider: str = "budget",
    choice: str = "what matters",
) -> str:
    """HTML that needs no other file and no network.

    Args:
        title: heading.
        note: one paragraph below it.
        budgets: positions of the slider, such as shares of the full network's MACs.
        preferences: names of the choices.
        shots: one per budget and preference: `budget` and `preference` (indices), `share` (text),
            `facts` and `scores` ({column: text}), `pictures` (JPEG files in base64).
        slider: what the slider moves.
        choice: what is chosen beside it.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    template = environment.from_string(_PAGE)
    return template.render(
        title=title,
        note=note,
        budgets=budgets,
        preferences=preferences,
        shots=shots,
        slider=slider,
        choice=choice,
    )


def write_control_page(path: Path, page: str) -> None:
    """Write a page."""
    write_text(path, page)
