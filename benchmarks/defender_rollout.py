"""Replies of unequal length: ours, which computes a prompt once and leaves out what has ended, or
`generate`'s.

python benchmarks/defender_rollout.py [--questions 4] [--visual-tokens 1024] [--group 8] [--completion 64]
[--ending 24] [--repeats 1] [--rival transformers|copied_cache|copied_heads]

Both sample a group of replies to each question, in one batch, from the same random Qwen2.5-VL (22 M
parameters) at temperature 1 without top-k or nucleus; transformers is asked for `num_return_sequences`, and
is lent our attention inside the vision tower. One token in `--ending` of the vocabulary ends a reply, so
that ours are of all lengths up to `--completion`; the rival's are made to end after exactly as many tokens
as ours did. That both are the same model is checked greedily before anything is timed. Both include the
preparation of the pictures. Seconds are processor time; a ratio above 1 means that ours is faster. Bar: 4
times faster.

Other rivals are ours without one of its parts: `copied_cache` has transformers' cache, which every step
copies; `copied_heads` copies keys and values for every head. They draw the same replies. Bar: 1.05 times
faster, or the part is not worth its lines.
"""

from __future__ import annotations

import argparse
from unittest.mock import patch

import torch
from _defenders import QUESTION, finish, measured, parameters, picture, random_vlm, report
from torch import Tensor
from transformers import DynamicCache, LogitsProcessor, LogitsProcessorList

from sparring.models.vlms import generating
from sparring.models.vlms.base import Sampling

BARS = {"transformers": 4.0, "copied_cache": 1.05, "copied_heads": 1.05}
NAMES = {
    "transformers": "transformers' generate",
    "copied_cache": "itself with transformers' cache",
    "copied_heads": "itself with keys copied for every head",
}


class EndAfter(LogitsProcessor):
    """Row i of a batch ends with its token number `lengths[i]`, and not before."""

    def __init__(self, lengths: list[int], prompt: int, ends: list[int]) -> None:
        self.lengths, self.prompt, self.ends = torch.tensor(lengths), prompt, torch.tensor(ends)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        last = self.lengths <= input_ids.shape[1] - self.prompt + 1
        allowed = torch.zeros_like(scores, dtype=torch.bool)
        allowed[:, self.ends] = True
        return scores.masked_fill(allowed != last.unsqueeze(1), -torch.inf)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--questions", type=int, default=4)
    parser.add_argument("--visual-tokens", type=int, default=1024)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--completion", type=int, default=64, help="tokens of a reply, at most")
    parser.add_argument(
        "--ending", type=int, default=24, help="of so many tokens of the vocabulary, one ends a reply"
    )
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--rival", choices=BARS, default="transformers")
    options = parser.parse_args()
    torch.set_num_threads(1)
    vlm = random_vlm(options.visual_tokens)
    images = [picture(options.visual_tokens, seed) for seed in range(options.questions)]
    questions = [QUESTION] * options.questions
    forbidden = list(vlm.forbidden)

    def transformers_replies(length: int, lengths: list[int] | None = None, **sampling: object) -> Tensor:
        batch = vlm.encode(images, questions)
        prompt = batch.pop("position_ids").shape[-1]
        del batch["picture_count"]
        ending = [EndAfter(lengths, prompt, list(vlm.end_tokens))] if lengths else []
        with torch.inference_mode():
            written: Tensor = vlm.model.generate(
                **batch,
                max_new_tokens=length,
                suppress_tokens=forbidden,
                logits_processor=LogitsProcessorList(ending),
                **sampling,
            )
        return written[:, prompt:]

    def ours() -> list[int]:
        replies = vlm.generate(
            images, questions, Sampling(options.completion, n=options.group, temperature=1.0)
        )
        return [len(reply.token_ids) for own in replies for reply in own]

    def without() -> list[int]:
        copied = {
            "copied_cache": ("roomy_cache", lambda: DynamicCache(config=vlm.model.config.get_text_config())),
            "copied_heads": ("attention_of", lambda text: "not grouped"),
        }
        with patch.object(generating, *copied[options.rival]):
            return ours()

    def rival(lengths: list[int]) -> object:
        if options.rival != "transformers":
            assert without() == lengths
            return lengths
        sampling = {
            "do_sample": True,
            "temperature": 1.0,
            "top_k": 0,
            "top_p": 1.0,
            "num_return_sequences": options.group,
        }
        return transformers_replies(max(lengths), lengths, **sampling)

    greedy = [list(own[0].token_ids) for own in vlm.generate(images, questions, Sampling(8))]
    vlm.model.generation_config.eos_token_id = None
    assert greedy == transformers_replies(8, do_sample=False).tolist()
    vlm.end_tokens = tuple(range(3, len(vlm.processor.tokenizer), options.ending))
    vlm.model.generation_config.eos_token_id = list(vlm.end_tokens)
    vlm.model.generation_config.pad_token_id = vlm.processor.tokenizer.pad_token_id
    lengths = ours()
    times: dict[str, list[tuple[float, float | None]]] = {"ours": [], "rival": []}
    for _ in range(options.repeats):
        times["ours"].append(measured(ours))
        times["rival"].append(measured(lambda: rival(lengths)))
    seconds = {name: sum(s for s, _ in own) / len(own) for name, own in times.items()}
    memory = {name: max(m or 0.0 for _, m in own) for name, own in times.items()}
    ratio = seconds["rival"] / seconds["ours"]
    case = {
        "questions": options.questions,
        "visual_tokens": options.visual_tokens,
        "group": options.group,
        "completion": options.completion,
        "lengths": {
            "mean": round(sum(lengths) / len(lengths), 1),
            "shortest": min(lengths),
            "longest": max(lengths),
        },
        "parameters": parameters(vlm),
        "threads": 1,
    }
    figures = {
        "ours": round(seconds["ours"], 3),
        "rival": round(seconds["rival"], 3),
        "ratio": round(ratio, 2),
        "unit": "seconds a batch",
        "ours_peak_mb": round(memory["ours"]),
        "rival_peak_mb": round(memory["rival"]),
    }
    bar = BARS[options.rival]
    met = {f"{bar:g} times faster": ratio >= bar}
    finish(report(f"Defender roll-out against {NAMES[options.rival]}", case, figures, met))


if __name__ == "__main__":
    main()
