"""The audit of published packages: the part of it that needs torch alone, and its lists."""

import importlib.metadata

import pytest
import yaml

from tools import audit

TORCH = [entry for entry in audit.ENTRIES if entry.package == "torch"]


@pytest.mark.parametrize("entry", TORCH, ids=lambda entry: entry.wrapper)
def test_torch_itself_is_judged_and_agrees_with_ours(entry, monkeypatch):
    monkeypatch.setattr(audit, "_TIMED_ROWS", 2)
    monkeypatch.setattr(audit, "REPLICATES", 2000)
    row = audit.audit(entry)
    assert row["version"] == importlib.metadata.version("torch")
    assert row["verdict"] == ("unbiased" if entry.wrapper.endswith(":Score") else "biased")
    enumerated = entry.wrapper.endswith((":Score", ":StraightThrough"))
    assert row["bias"].endswith("enumerated") == enumerated
    # RelaxedOneHotCategorical takes the Gumbel noise from uniforms instead of exponentials.
    assert ("draw by draw" in row["agreement"]) != entry.wrapper.endswith(":Relaxed")


def test_a_wrapper_that_raises_or_shares_noise_is_a_row(tmp_path, monkeypatch):
    text = (
        "import torch\n"
        "from gradest import SurrogateSample\n"
        "from gradest.foreign import redirected\n"
        "class Raises(SurrogateSample):\n"
        "    def draw(self, logits):\n"
        "        torch.autograd.set_detect_anomaly(True).__enter__()\n"
        "        raise RuntimeError('library error')\n"
        "class Shares(SurrogateSample):\n"
        "    def draw(self, logits):\n"
        "        with redirected(logits):\n"
        "            return logits + torch.rand(())\n"
    )
    (tmp_path / "library.py").write_text(text)
    (tmp_path / "cubic.py").write_text((audit.FOLDER / "cubic.py").read_text())
    monkeypatch.setattr(audit, "FOLDER", tmp_path)
    names = ("Raises", "Shares")
    rows = list(audit.audits([audit.Entry("torch", f"library.py:{name}") for name in names]))
    assert [row["verdict"] for row in rows] == ["error", "refused"]
    assert rows[0]["bias"] == "RuntimeError: library error"
    assert "no first axis of 7 rows" in rows[1]["bias"]


def test_suite_requirements_and_proofs_cover_the_packages():
    suite = yaml.safe_load((audit.FOLDER / "audit.yaml").read_text())
    listed = {next(iter(each)) if isinstance(each, dict) else each for each in suite["estimators"]}
    measured = {entry.wrapper.partition(":")[2] for entry in audit.ENTRIES}
    assert measured - listed == {"HardConcrete", "Rebar", "GaussianBits"}  # refused
    assert listed <= measured
    required = (audit.FOLDER / "requirements.txt").read_text()
    packages = {entry.package for entry in audit.ENTRIES} - {"torch"}
    assert all(f"\n{package}==" in required for package in packages)
    for path in (audit.FOLDER / "proofs").glob("*.py"):
        assert path.stem.partition("_")[0] in {package.partition("-")[0] for package in packages}
