"""A server that is not ours: `transformers serve` with the bundled judge. It needs fastapi, uvicorn and torchvision,
without which it loads no processor of this family.
"""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from small_vlms import noise_pictures
from sparring.config import EndpointSettings
from sparring.data.errors import ModelError
from sparring.models.vlms.base import Sampling, load_vlm
from sparring.models.vlms.local import LocalVLM
from sparring.recipes import resolve_model

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("torchvision")


@pytest.mark.slow
def test_replies_are_those_of_the_local_model() -> None:
    judge = resolve_model("arena/judge")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        str(Path(sys.executable).with_name("transformers")),
        "serve",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        judge,
    ]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    pictures, prompts = (
        noise_pictures(4),
        [f"How many {name} objects are there?" for name in ("cup", "ball", "key", "hat")],
    )
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            for _ in range(600):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert server.poll() is None
                time.sleep(0.2)
            remote = load_vlm(f"http://127.0.0.1:{port}/v1#{judge}", endpoint=EndpointSettings(concurrency=1))
            found = remote.generate(pictures, prompts, Sampling(24))
            with pytest.raises(ModelError, match=r"HTTP 422.*scores prompts"):
                remote.option_probabilities(pictures[:1], prompts[:1], ["one"])
        finally:
            server.terminate()
    expected = LocalVLM.load(judge).generate(pictures, prompts, Sampling(24))
    assert [(r.text, r.tokens, r.finished) for (r,) in found] == [
        (r.text, r.tokens, r.finished) for (r,) in expected
    ]
