"""How items are put into words: one template a style and kind; {question}, {options} and {hint} are replaced."""

from __future__ import annotations

from typing import Literal, get_args

from sparring.evaluation.items import Item, Kind

Style = Literal["boxed", "options", "direct", "vlmevalkit"]
STYLES: tuple[Style, ...] = get_args(Style)
TEMPLATES: dict[Style, dict[Kind, str]] = {
    # Of options the Defender's own prompt (`defender.prompt`), whose default asks for a box too.
    "boxed": {
        "choice": "",
        "yes_no": "{question}\nThink briefly, then put yes or no in \\boxed{}.",
        "open": "{question}\nThink briefly, then put the answer in \\boxed{}.",
        "caption": "{question}",
    },
    # As "boxed", but yes and no are options of the Defender's own prompt: for a Defender that knows no other questions than those with options.
    "options": {
        "choice": "",
        "yes_no": "",
        "open": "{question}\nThink briefly, then put the answer in \\boxed{}.",
        "caption": "{question}",
    },
    "direct": {
        "choice": "{question}\n{options}\nAnswer with the option's letter from the given choices directly.",
        "yes_no": "{question}\nAnswer the question using a single word or phrase.",
        "open": "{question}\nAnswer the question using a single word or phrase.",
        "caption": "{question}",
    },
    "vlmevalkit": {
        "choice": "{hint}Question: {question}\nOptions:\n{options}\nPlease select the correct answer from the options above. \n",
        "yes_no": "{question} Please answer yes or no.",
        "open": "{hint}Question: {question}\n",
        "caption": "{question}",
    },
}
ASKED_ALREADY = "please answer yes or no."


def render_item(item: Item, style: Style, template: str) -> str:
    """What is asked beside the item's pictures. template: of questions with options in the styles "boxed" and "options", with doubled braces as in recipes."""
    options = "\n".join(f"{letter}. {option}" for letter, option in zip(item.letters, item.options, strict=True))
    if not TEMPLATES[style][item.kind]:
        question = f"{item.hint}\n{item.question}" if item.hint else item.question
        return template.format(question=question, options=options)
    text = TEMPLATES[style][item.kind]
    if style == "vlmevalkit" and item.kind == "yes_no" and ASKED_ALREADY in item.question.lower():
        text = "{question}"
    hint = f"Hint: {item.hint}\n" if item.hint else ""
    question = f"{item.hint}\n{item.question}" if item.hint and "{hint}" not in text else item.question
    # One pass, so that braces in a question stay as they are.
    parts = {"{question}": question, "{options}": options, "{hint}": hint}
    return "".join(parts.get(part, part) for part in _split(text))


def _split(text: str) -> list[str]:
    """A template in pieces: placeholders and what stands between them."""
    pieces = [text]
    for name in ("{question}", "{options}", "{hint}"):
        pieces = [part for piece in pieces for part in _around(piece, name)]
    return pieces


def _around(piece: str, name: str) -> list[str]:
    before, found, after = piece.partition(name)
    return [before, name, after] if found else [piece]
