"""Which options does a text name, and where? Options as words, and words as mentions of options.

The longest text that fits counts ("dark red" is no "red"; hyphens and articles do not count). A letter and
the text beside it are one mention; letters or texts that are listed ("A or B") are one mention of several.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from sparring.asking.wording import (
    AFTER_HYPHEN,
    ARTICLES,
    CHINESE,
    CLOSES,
    GRAMMAR,
    LABELS,
    LISTS,
    NO_WORDS,
    NUMBER_WORDS,
    OPENS,
    PLURAL,
    RIGHT_ADVERB,
    SINGULAR,
    STOPS,
    TOKEN,
    VERBS,
    YES_WORDS,
    plain_text,
)
from sparring.data.records import LETTERS

CUES = ("answer", "option", "choice", "(", "[")
MANY = 400
"""Mentions after which a reply is taken to ramble: nothing is read."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """How options are named. texts: first word -> (all words, letter), longest first. polar: they are yes and
    no.

    sought: what a long text is searched for before it is read. named: some text holds a lone letter ("Vitamin
    C"). lone: options whose text is an option's letter. grammar: of words that every sentence holds, with
    their letters.
    """

    letters: frozenset[str]
    texts: dict[str, list[tuple[tuple[str, ...], str]]]
    polar: bool
    numeric: bool
    lettered: bool
    starts: frozenset[str]
    sought: tuple[str, ...]
    named: bool
    lone: dict[str, str]
    grammar: dict[tuple[str, ...], str]


@lru_cache(maxsize=4096)
def vocabulary_of(options: tuple[str, ...], *, lettered: bool) -> Vocabulary:
    """lettered: options are shown with letters. Texts that two options share name neither."""
    words = [option_words(option) for option in options]
    words = [
        ("a", *own) if option.lstrip().startswith("A ") and _is_named_alike(own, words) else own
        for option, own in zip(options, words, strict=True)
    ]
    # A text that is a letter itself ("A" as the option B) is read as the letter: that is what prompts ask
    # for.
    named_once = [
        (own, letter) for own, letter in zip(words, LETTERS, strict=False) if own and words.count(own) == 1
    ]
    lone = {letter: own[0] for own, letter in named_once if lettered and _is_label(own, options)}
    names = [(own, letter) for own, letter in named_once if letter not in lone]
    grammar = {own: letter for own, letter in names if GRAMMAR.issuperset(own)}
    names = [(own, letter) for own, letter in names if own not in grammar]
    polar = {("yes",), ("no",)} <= set(words)
    numeric = sum(len(own) == 1 and own[0].isdecimal() for own in words) > len(words) / 2
    for own, letter in list(names):
        if own in (("yes",), ("no",)) and polar:
            names += [(tuple(word.split()), letter) for word in (YES_WORDS if own == ("yes",) else NO_WORDS)]
        elif len(own) == 1 and own[0].isdecimal() and int(own[0]) < len(NUMBER_WORDS):
            names.append(((NUMBER_WORDS[int(own[0])],), letter))
        elif len(own) == 1 and own[0] in NUMBER_WORDS:
            names.append(((str(NUMBER_WORDS.index(own[0])),), letter))
    texts: dict[str, list[tuple[tuple[str, ...], str]]] = {}
    for own, letter in sorted(set(names), key=lambda name: (-len(name[0]), name)):
        if all(own != other for other, _ in texts.get(own[0], ())):
            texts.setdefault(own[0], []).append((own, letter))
    letters = frozenset(LETTERS[: len(options)]) if lettered else frozenset[str]()
    sought = (*CUES, *(word for word in texts if len(word) > 1 or not word.isalpha() or not word.isascii()))
    starts = frozenset(texts) | {letter.lower() for letter in letters}
    named = any(len(word) == 1 and word.isalpha() and word.isascii() for own in words for word in own)
    return Vocabulary(letters, texts, polar, numeric, lettered, starts, sought, named, lone, grammar)


def _is_named_alike(words: tuple[str, ...], others: list[tuple[str, ...]]) -> bool:
    """Do the same words stand behind a lone letter in another option? "A" is a name before them then:
    "A is closer", "B is closer".
    """
    return any(other[1:] == words and len(other[0]) == 1 and other[0].isalpha() for other in others if other)


def _is_label(words: tuple[str, ...], options: tuple[str, ...]) -> bool:
    return len(words) == 1 and words[0].upper() in list(LETTERS[: len(options)])


def option_words(option: str) -> tuple[str, ...]:
    # "A" is the article where it begins a text, and a name elsewhere: "Vitamin A".
    tokens = [
        token if token == "A" and place else token.lower()
        for place, token in enumerate(TOKEN.findall(plain_text(option)))
    ]
    while len(tokens) > 1 and tokens[-1] in STOPS | OPENS | CLOSES:
        tokens.pop()
    while len(tokens) > 1 and tokens[0] in STOPS | OPENS | CLOSES:
        tokens.pop(0)
    words = [token for token in tokens if token not in ARTICLES and token != "-" and not token.isspace()]
    return tuple(word.lower() for word in words or tokens)


@dataclass(slots=True)
class Mention:
    """An option in a text: words `start` to `end`. bare: nothing but a letter. labelled: a letter and
    the text, or "option B", "(B)".
    """

    start: int
    end: int
    letters: tuple[str, ...]
    bare: bool = False
    small: bool = False
    labelled: bool = False
    item: bool = False
    denied: bool = False
    affirmed: bool = False
    asked: bool = False
    stated: bool = False
    alone: bool = False


class Words:
    """A text as words, with the mentions of options in it."""

    def __init__(self, text: str, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.raw: list[str] = TOKEN.findall(text)
        self.low = [token.lower() for token in self.raw]
        self.mentions = self._listed(self._merged(list(self._mentions())))

    # -- finding

    def _mentions(self) -> Iterator[Mention]:
        low, vocabulary, place, found = self.low, self.vocabulary, 0, 0
        starts = vocabulary.starts
        for index in [index for index, word in enumerate(low) if word in starts]:
            if index < place or found > MANY:
                continue
            mention = self._text(index) or self._letter(index)
            if mention is not None:
                place, found = mention.end, found + 1
                yield mention

    def _text(self, index: int) -> Mention | None:
        low = self.low
        if index and low[index - 1] == "-":
            return None  # the second half of a compound: "non-red"
        for words, letter in self.vocabulary.texts.get(low[index], ()):
            place, matched = index, 0
            while matched < len(words) and place < len(low):
                if low[place] == words[matched]:
                    matched += 1
                elif not matched or not (low[place] in ARTICLES or low[place] == "-"):
                    break
                place += 1
            if matched < len(words):
                continue
            after, last = self._word(place + 1), self._word(place)
            if last == "-" and after not in AFTER_HYPHEN:
                continue  # "red-ish"
            if len(words) == 1 and self._is_other_word(index, words[0]):
                return None
            return Mention(index, place, (letter,))
        return None

    def _is_other_word(self, index: int, word: str) -> bool:
        before, after = self._word(index - 1), self._word(index + 1)
        # part of a longer word, unless what follows is a particle
        if CHINESE.match(word) and self.vocabulary.polar:
            return CHINESE.match(before) is not None or (CHINESE.match(after) is not None and after != "的")
        if word == "right":
            called = (
                before in ("that's", "you're", "all", "is", "are", "was", "looks", "seems") and after != "of"
            )
            return called or after in RIGHT_ADVERB
        if word == "left":
            return before in ("is", "are", "was", "has", "have", "what's", "have") and after in (
                "with",
                "over",
                "out",
                "?",
            )
        if word == "one" and self.vocabulary.numeric:
            return before not in (
                "is",
                "only",
                "just",
                "exactly",
                "",
                ".",
                ":",
                "answer",
                "see",
                "count",
                "(",
            ) or after in ("of", "on", "in", "is")
        if word.isdecimal() and any(
            near.replace(",", "").isdecimal() for near in (before, after, *self._beyond_commas(index))
        ):
            return True  # coordinates: "2 5", "(2, 5)"
        # "(2)" may be the second option or the number.
        return (
            word.isdecimal()
            and before in OPENS - {'"', "'"}
            and after in CLOSES
            and self._word(index - 2) == ""
        )

    def _beyond_commas(self, index: int) -> Iterator[str]:
        if self._word(index - 1) == ",":
            yield self._word(index - 2)
        if self._word(index + 1) == ",":
            yield self._word(index + 2)

    def _word(self, index: int) -> str:
        return self.low[index] if 0 <= index < len(self.low) else ""

    def _letter(self, index: int) -> Mention | None:
        raw = self.raw[index]
        letter = raw.upper()
        if len(raw) != 1 or letter not in self.vocabulary.letters:
            return None
        before, after = self._word(index - 1), self._word(index + 1)
        start, end, labelled = index, index + 1, False
        if before in OPENS and after in CLOSES:
            start, end, labelled = index - 1, index + 2, before not in "\"'"
        elif after == ")":
            end = index + 2
        if before == "-" or after == "-":
            return None
        if self._word(start - 1) in LABELS and self._word(start - 1) != "options":
            start, labelled = start - 1, True
            if self.low[start] == "项" and self._word(start - 1) == "选":
                start -= 1
        following = self._word(end)
        runs_on = not labelled and end == index + 1 and is_word(following) and not CHINESE.match(following)
        # "A red car", "I see": the article and the pronoun; a small letter before a word is no option.
        known = VERBS if raw == "A" else ("or", "and", "is") if raw == "I" else (following,)
        if runs_on and (raw.islower() or following not in known):
            return None
        if raw == "I" and not labelled and following == "," and start == 0:
            return None
        return Mention(
            start, end, (letter,), bare=not labelled, small=raw.islower() and not labelled, labelled=labelled
        )

    # -- joining

    def _merged(self, mentions: list[Mention]) -> list[Mention]:
        """A letter beside a text as one mention: "B. red", "red (B)"; of both options where they
        disagree ("B. blue").
        """
        merged: list[Mention] = []
        for mention in mentions:
            last = merged[-1] if merged else None
            if last is not None and len(last.letters) == 1 and self._beside(last, mention):
                same = last.letters == mention.letters
                letters = last.letters if same else (*last.letters, *mention.letters)
                item = last.bare or last.labelled
                end = mention.end + (
                    self._word(mention.end) in CLOSES and self._word(mention.start - 1) in OPENS
                )
                merged[-1] = Mention(last.start, end, letters, labelled=True, item=item)
            else:
                merged.append(mention)
        return merged

    def _beside(self, first: Mention, second: Mention) -> bool:
        lettered = [mention.bare or mention.labelled for mention in (first, second)]
        gap = self.low[first.end : second.start]
        lone = all(lettered) and self.vocabulary.lone.get(first.letters[0]) == second.letters[0].lower()
        if lone and gap in ([], ["."], [":"]):
            second.letters = first.letters  # "B. A", where A is the text of B
            return True
        if lettered[0] == lettered[1] or first.item or len(gap) > 3:
            return False
        if not all(
            word in (".", ":", ")", "(", "–", ",", "-", '"', "'", "]", "=", "the", "a", "an") for word in gap
        ):
            return False
        if first.letters == second.letters:
            return True
        # They disagree: one label with another's text, unless the text goes on as a sentence of its own.
        follows = self._word(second.end)
        if lettered[0]:
            return self._begins_clause(first.start) and "," not in gap and not is_word(follows)
        return (bool(gap) and gap[0] in ("(", "[")) or (not gap and second.labelled)

    def _begins_clause(self, index: int) -> bool:
        before = self._word(index - 1)
        return before in STOPS or before in ("", "-", '"', "'") or before.isspace()

    def _listed(self, mentions: list[Mention]) -> list[Mention]:
        """Mentions that are said in one breath as one: "A or B", "A, C and D", "red/blue"."""
        listed: list[Mention] = []
        place = 0
        while place < len(mentions):
            last, joined = place, False
            while last + 1 < len(mentions) and not joined:
                gap = self.low[mentions[last].end : mentions[last + 1].start]
                if not gap or len(gap) > 3 or not LISTS.issuperset(gap):
                    break
                joined = gap[-1] in ("and", "or", "nor")
                last += 1
            if (
                joined
                and self._word(mentions[last].end) in SINGULAR
                and self.low[mentions[last].start - 1] == "and"
            ):
                last -= 1  # "the answer is B and A is too small"
            after = self._word(mentions[last].end)
            commas = last > place and all(
                self.low[mentions[i].end : mentions[i + 1].start] == [","] for i in range(place, last)
            )  # a comma may also join two sentences: "B, A is wrong"
            if commas and not (after in STOPS or after in ("", *PLURAL) or after.isspace()):
                last = place
            parts = mentions[place : last + 1]
            letters = tuple(dict.fromkeys(letter for part in parts for letter in part.letters))
            if len(letters) == 1 or last == place:  # said twice, or not listed
                listed += parts
            else:
                bare = all(part.bare for part in parts)
                labelled = not bare and any(part.bare or part.labelled for part in parts)
                listed.append(Mention(parts[0].start, parts[-1].end, letters, bare=bare, labelled=labelled))
            place = last + 1
        return listed


def is_word(token: str) -> bool:
    return token[:1].isalnum()
