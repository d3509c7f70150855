"""One tokenizer for all bundled players: byte-level BPE in which every word of the embedded world is one
token.

Any other text is spelt in smaller pieces, down to bytes, so no input is lost.
"""

from __future__ import annotations

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from sparring_arena.questions import DIRECTIONS, NUMBERS
from sparring_arena.sprites import COLORS, NAMES, plural

SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<image>",
)
INSTRUCTION = (
    "Add a plausible distractor object, inspired by the question, to mislead a model answering: {question}"
)
COUNT_PROMPT = "How many {name} objects are there?"

SENTENCES = (
    INSTRUCTION.format(question=""),
    "Where is the relative to the? What color is the? Is there a in the picture? How many are in "
    "the picture? yes no Options",
    "Think briefly, then put the letter of the right option in",
    COUNT_PROMPT.format(name=""),
    "add a beside the remove the replace the with a make the keep the picture as it is user assistant system",
    "Add a beside the Remove the Replace the with a Make the Keep the picture as it is User "
    "Assistant one many of and or at an",
)


def build(*, model_max_length: int = 512, chat_template: str | None = None) -> PreTrainedTokenizerFast:
    """The tokenizer. `chat_template` is Jinja; texts are not changed by it otherwise."""
    words = [*NAMES, *(plural(n) for n in NAMES), *COLORS, *DIRECTIONS, *NUMBERS, *"1234567"]
    corpus = [f"{word} {word}" for word in words for _ in range(20)] + [
        s for s in SENTENCES for _ in range(20)
    ]
    corpus += list("ABCDEFGHIJKLMNOPQRSTUVWXYZ") * 20
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]|\s"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4000,
        min_frequency=2,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    # The opening of the answer is one token, so that the letter directly follows it.
    tokenizer.add_tokens([AddedToken(" \\boxed{", normalized=False, special=False)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=model_max_length,
        padding_side="left",
    )
    fast.chat_template = chat_template
    return fast
