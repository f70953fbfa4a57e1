"""Quantised activations cost little: perplexity beside the float32 reference."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest

from tests.decode.make_golden import GOLDEN
from tests.decode.reference import ReferenceDecoder
from tests.decode.scoring import log_probabilities

PEPS = Path(__file__).parents[2].parent / "shared" / "data" / "peps.tar.gz"
WINDOWS, WINDOW = 20, 1_001


def test_default_mode_on_a_thousand_tokens(smollm2):
    golden = json.loads(GOLDEN.read_text("utf-8"))["scored"]
    scores = log_probabilities(smollm2.decoder, golden["tokens"])
    assert len(scores) == 1_000
    ratio = np.exp(golden["mean_log_probability"] - scores.mean())
    assert abs(ratio - 1) < 0.01


@pytest.mark.slow
@pytest.mark.timeout(3_600)  # seven minutes on two free cores, nearly all of it the reference
def test_default_mode_on_twenty_thousand_tokens(smollm2, smollm2_path, capsys):
    if not PEPS.exists():
        pytest.skip(f"the PEPs are not at {PEPS}")
    reference = ReferenceDecoder(smollm2_path)
    ours, theirs = [], []
    for tokens in pep_windows(smollm2.tokenizer):
        ours.append(log_probabilities(smollm2.decoder, tokens))
        theirs.append(reference.log_probabilities(tokens))
    scored = np.concatenate(ours)
    assert len(scored) == 20_000
    perplexity, expected = np.exp(-scored.mean()), np.exp(-np.concatenate(theirs).mean())
    with capsys.disabled():
        print(f"\nperplexity: int8 activations {perplexity:.4f}, reference {expected:.4f}")
    assert abs(perplexity / expected - 1) < 0.01


def pep_windows(tokenizer):
    """The first 1,001 tokens of twenty PEPs, spread over all that are long enough."""
    with tarfile.open(PEPS) as archive:
        names = sorted(
            member.name
            for member in archive.getmembers()
            if re.search(r"pep-\d+\.rst$", member.name) and member.size > 8_000
        )
        for name in names[:: len(names) // WINDOWS][:WINDOWS]:
            text = archive.extractfile(name).read().decode("utf-8")
            tokens = tokenizer.encode(text)[:WINDOW]
            assert len(tokens) == WINDOW
            yield tokens
