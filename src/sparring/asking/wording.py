"""What replies are written in: characters, markup, and the words by which a statement is known for one.

The lists are short and closed: each word in them changes what a reply is read as.
"""

from __future__ import annotations

import re

# ---- characters and markup

_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_SAME = '‐-‑-‒–—–−–―–’\'‘\'“"”"„"«"»"′\'。.、,・ 「"」"『"』"【[】]〔[〕]✔✓✅✓☑✓✗✗✘✗❌✗❎✗…\u2026İI→ ⇒ ➡ 👉 •\n·\n▪\n‣\n'
CHARACTERS = (
    _FULL_WIDTH
    | {ord(_SAME[place]): _SAME[place + 1] for place in range(0, len(_SAME), 2)}
    | dict.fromkeys((0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF, 0xFE0F), None)
    | dict.fromkeys((0xA0, 0x2007, 0x2009, 0x202F, 0x3000), " ")
    | dict.fromkeys((0x2028, 0x2029, 0x85), "\n")
)
_FONTS = r"\\+(?:text(?:bf|rm|sf|tt|it|normal)?|math(?:bf|rm|sf|tt|it|normal)|mbox|operatorname|emph|underline|boldsymbol|bm|bf|rm|it|sf)"
FONT = re.compile(_FONTS + r"\s*\{([^{}]*)\}")
ESCAPED = re.compile(r"\\+([$%#&_])")
LATEX = re.compile(_FONTS + r"\b\s*|\\+q?quad\b|\\+[ ,;:!()\[\]]|\\+(?:boxed|fbox)\b")
EMOJI = re.compile("[\U0001f000-\U0001faff\u2190-\u21ff\u2600-\u2712\u2719-\u27bf]+")
SPACES = re.compile(r"[ \t]{2,}")
DASH = re.compile(r"(?:(?<=\s)|^)-+(?=\s|$)")
SPECIAL = re.compile(
    r"<\|[^|<>]{1,40}\|>|</?s>|<(?:end_of_turn|start_of_turn|eos|bos|pad|eot)>|</?answer>", re.IGNORECASE
)
MARKUP = re.compile(r"[*`$]+|(?<![^\W_])_+|_+(?![^\W_])")
NUMBERED = re.compile(r"^\s*\d{1,2}[.)]\s+(?=\S)")
JSON_KEY = re.compile(
    r"[\"'](?:final[_ ]?|correct[_ ]?|predicted[_ "
    r"]?)?(?:answer|choice|option|prediction|response|label|letter)[\"']\s*:\s*",
    re.IGNORECASE,
)
QUESTION_AND_ANSWER = re.compile(r"^\s*(?:Q|Question)\s*:.*?\bA\s*:", re.DOTALL)


def plain_text(text: str) -> str:
    """Without what carries no meaning: markup, LaTeX's fonts and spaces, special tokens, wide and
    typographic forms of characters.
    """
    if not text.isascii():
        text = EMOJI.sub(" | ", text.translate(CHARACTERS))
    if "\\" in text:
        text = FONT.sub(r"\1", FONT.sub(r"\1", text))
        text = ESCAPED.sub(r"\1", text)
        text = LATEX.sub(lambda match: " " if match[0][-1] in " ,;:!quad" else "", text).replace("~", " ")
    if "<" in text:
        text = SPECIAL.sub(" ", text)
    if "*" in text or "_" in text or "`" in text or "$" in text:
        text = MARKUP.sub("", text)
    if "  " in text:
        text = SPACES.sub(" ", text)
    return DASH.sub("–", text) if "-" in text else text


# ---- words

TOKEN = re.compile(
    r"[ \t]*("
    r"[A-Za-z]{2,}(?![\w'./])"  # most words: the rest is for the others
    r"|\d+(?:[.,:/]\d+)*(?:(?:st|nd|rd|th)\b)?"  # 1,200  2.5  3:00  2nd
    r"|(?:[nN]/[aA]|[wW]/[oO]?)\b"
    r"|(?:[Ff]igs?|FIG|[Vv]ol|[Ss]ec|[Cc]h|[Ee]q|[Rr]ef|Dr|Mrs?|Ms|[Vv]s|[Tt]ab|[Aa]pprox|[Cc]a|[Cc]f|[Pp]p?|[Nn]r)\.(?=\s*[^\W_])"
    r"|[^\W\d_](?:\.[^\W\d_])+(?:\.|\b)"  # U.S.A  e.g.
    r"|[\u3040-\u30ff\u4e00-\u9fff]"
    r"|[^\W_\u3040-\u30ff\u4e00-\u9fff]+(?:'[^\W_]+)*"
    r"|\.{2,}|\n+|[^\s_]|_+)"
)
CHINESE = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


ARTICLES = _set("a an the")
OPENS, CLOSES = _set("( [ { < \" '"), _set(") ] } > \" '")
STOPS = _set(". , ; : ! ? – ( ) [ ] { } .. ... .... \u2026 = | > #")
"""What ends a clause, beside the end of a line; ENDS end a sentence."""
ENDS = _set(". ! ? ; .. ... .... \u2026")
TURNS = _set("but so therefore thus hence because since while whereas although though however which")
"""Words that begin a clause without a mark before them."""
RECONSIDERS = _set("wait actually hmm hm oops sorry correction scratch")
"""Words that begin a second thought, after which what was stated before no longer holds."""
LABELS = _set("option options choice alternative 选 项")
# Words that add nothing to a mention that stands by itself.
IDLE = LABELS | _set(
    "so thus therefore hence then it is it's its that that's this be was must would should will ok "
    "okay well the a an answer letter sure "
    "definitely clearly probably likely surely certainly obviously maybe perhaps final correct right "
    "just simply only my i i'd say guess absolutely indeed totally statement claim "
    "think in view opinion and because here would've ✓ \" ' # > | - 的 吧 应 该 所 以 因 此"
)
# Words between "answer" and what is announced.
BETWEEN = LABELS | _set(
    ": = – is are was be being have been would should must will likely most probably definitely clearly "
    "certainly obviously surely therefore thus then "
    "hence so simply just the a an letter \" ' ( [ {  to indeed here actually still either for "
    "with on that it it's as final correct "
    "right this question problem image picture best out of toward towards ist est es è é lautet "
    "correcta correcte corretta sera son 은 는 this "
    "\u2026 ... | ,"
)
ANNOUNCES = _set(
    "answer ans choose choosing chose chosen select selecting selected pick picking picked say think "
    "guess believe conclude go going went opt "
    "settle vote lean leaning take count counted sure antwort réponse reponse respuesta risposta "
    "resposta ответ 정답 정답은 답 답은"
)
NOUNS = _set(
    "option choice letter alternative selection response solution prediction conclusion result "
    "match correct final"
)
"""Announce only with "is" or a mark after them: "the option is B", but "option B"."""
LINKS = _set(": = is be would should must –")
BEFORE_VERDICT = _set(
    "is was are looks seems appears would be must the a an clearly definitely most probably likely "
    "really indeed also only this that one to best"
)
ANNOUNCES_CHINESE = (
    "答案",
    "答案是",
    "答案为",
    "应是",
    "应为",
    "选",
    "选择",
    "选项是",
    "项是",
    "确的是",
    "认为是",
    "答えは",
    "答え",
    "该是",
    "以是",
)
DENIES = _set(
    "not never neither nor none nothing hardly barely scarcely lacking cannot without except "
    "excluding no isn wrong incorrect unlikely "
    "eliminate eliminated eliminating exclude "
    "excluded discard discarded reject rejected ✗ non 不 没 非 错 nicht kein keine pas ni"
)
DENIES_IN_PAIRS = {("rather", "than"), ("instead", "of"), ("anything", "but"), ("everything", "but"), ("all", "but"), ("rule", "out"),
                   ("ruled", "out"), ("ruling", "out"), ("other", "than"), ("far", "from"), ("opposed", "to"), ("different", "from")}  # fmt: skip
DENIES_AFTER = (DENIES - {"no", "none", "without", "except"}) | _set(
    "ruled out false invalid impossible lacks fails contradicts mismatch inaccurate irrelevant doesn't"
)
AFFIRMS = _set(
    "correct right fits fit matches match best better true accurate valid appropriate suitable "
    "answer yes ✓ winner 对 正"
)
LISTS = _set(", / & and or nor vs vs.")
VERDICTS = _set("yes no correct incorrect wrong right true false")
SUPPOSES = _set("if whether unless suppose assuming assume why")
VERBS = _set(
    "is isn't was wasn't are aren't were or and but because since as fits fit matches match looks "
    "then vs versus over "
    "seems appears would should can cannot can't "
    "could does doesn't has hasn't best correct"
)
SINGULAR = _set("is isn't was wasn't looks seems appears does doesn't has fits matches can could would")
PLURAL = _set("are aren't were weren't do don't have")
GRAMMAR = _set(
    "a an the some is are was were am be been being and or but not of to in it that this as do "
    "does did has have had"
)
"""Options of these words alone are read from replies that are nothing else: in any other they are grammar."""
AFTER_HYPHEN = _set("hand hands side sided colored coloured most ward handed")
NO_NOUNS = _set(
    "doubt problem problems idea image images picture pictures photo photograph photos figure way clue "
    "comment information need worries reason "
    "matter answer option options wonder thanks more less longer fewer sooner later"
)
RIGHT_ADVERB = _set(
    "next above below behind beside besides in at under underneath near there here now away before "
    "after beneath over by outside inside between "
    "answer option choice one"
)
YES_WORDS = ("yes", "yeah", "yep", "yup", "true", "是", "对", "有")
NO_WORDS = ("no", "nope", "nah", "false", "否", "不", "不 是", "没 有")
NUMBER_WORDS = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)
INABILITY = re.compile(
    r"\b(?:can'?t|cannot|can not|couldn'?t|unable to|not able "
    r"to|don'?t)\s+(?:actually\s+|really\s+)?(?:see|view|access|open|load|have)\s+"
    r"(?:access to\s+)?(?:(?:the|any|an|a|this|that|your|attached)\s+)*(?:image|picture|photo|figure)"
    r"|\bno (?:image|picture|photo|figure)\b|\b(?:can'?t|cannot|unable to) (?:help|answer|assist)\b",
    re.IGNORECASE,
)
