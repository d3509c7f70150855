"""What is trained is what transformers runs."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import cosine_similarity

from sparring_arena.world import render, sample_scene
from workshop.architecture import SmallVLM


@pytest.mark.parametrize("merge", [1, 2])
def test_the_training_path_computes_what_transformers_computes(merge: int) -> None:
    """Tokens, positions and logits: the picture's tokens stand where the chat template puts them."""
    torch.manual_seed(0)
    net = SmallVLM(merge)
    net.model.eval()
    picture = render(sample_scene(np.random.default_rng(1)))
    text = net.chat("What color is the cup?", picture=True)
    tokens = torch.tensor([net.tokenizer(text, add_special_tokens=False)["input_ids"]])
    pictures = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 127.5 - 1
    read = net.image_processor([Image.fromarray(picture)], return_tensors="pt")
    with torch.no_grad():
        _, hidden = net.hidden(tokens, net.features(pictures))
        theirs = net.model(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            mm_token_type_ids=(tokens == net.model.config.image_token_id).long(),
            **read,
        )
    wanted = net.model.model.get_rope_index(
        tokens,
        mm_token_type_ids=(tokens == net.model.config.image_token_id).long(),
        image_grid_thw=read["image_grid_thw"],
    )[0]
    assert torch.equal(net.positions(tokens.shape[1], picture=True), wanted[:, 0])
    ours, theirs = net.logits(hidden)[0, -8:], theirs.logits[0, -8:]
    # products in bfloat16 against float32; with the picture one token off this is below 0.8
    assert cosine_similarity(ours, theirs).min() > 0.99
