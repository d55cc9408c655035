"""The file of what a trained model has written."""

from pathlib import Path

import pytest

from sweep.samples import Sample, read, write


@pytest.mark.parametrize("line", [b"{", b"[" * 100_000, b"[]", b'{"prompt": "a", "expected": "b", "answer": 1}'])
def test_read_names_the_line_that_is_no_sample(line: bytes, tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    write([Sample("Who?", "God", "A man")], path)
    path.write_bytes(path.read_bytes() + line)
    with pytest.raises(ValueError, match=r"not samples \(line 2 has no prompt, expected, answer\)"):
        read(path)
