"""What a report offers to papers: tables in LaTeX that compile, bold where it is deserved."""

import re
import shutil
import subprocess

import pandas as pd
import pytest
from pylatexenc.latex2text import LatexNodes2Text, MacroTextSpec, get_default_latex_context_db
from pylatexenc.latexwalker import LatexWalker

from gradest.report.documents import latex
from gradest.support import tex
from gradest.support.numbers import count, interval, number, plus_minus, share
from tests import hostile
from tests.report.rows import CONTROLS, hostile_rows, row, rows

ENUMERATED = {"method": "enumerated", "outcomes": 9, "replicates": 0}


PREAMBLE = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}"


def exactly(variance, **columns):
    ends = dict.fromkeys(("variance_low", "variance_high"), variance)
    return row(variance=variance, **columns) | ENUMERATED | ends | {"bias_sq_high": 0.0}


@pytest.fixture
def tables(write, tmp_path):
    """Writes a report and returns its tables for papers: name -> text."""

    def written(rows, **run):
        write(rows, **run)
        result = (tmp_path / "tables").glob("*.tex")
        return {path.stem: path.read_text(encoding="utf-8") for path in result}

    return written


def cells(table):
    """The lines of a table's body, as lists of its columns in LaTeX."""
    body = table.split(r"\midrule", 1)[1].split(r"\bottomrule")[0]
    lines = [line.strip().removesuffix(r" \\") for line in body.splitlines() if "&" in line]
    return [[cell.strip() for cell in re.split(r"(?<!\\)&", line)] for line in lines]


def read(escaped):
    """What a reader of the compiled text sees."""
    signs = {"less": "<", "greater": ">", "bar": "|", "braceleft": "{", "braceright": "}"}
    signs["asciicircum"] = "^"
    macros = [MacroTextSpec(f"text{name}", sign) for name, sign in signs.items()]
    context = get_default_latex_context_db()
    context.add_context_category("signs", macros=macros, prepend=True)
    reader = LatexNodes2Text(latex_context=context, math_mode="text")
    unknown = {r"\symbol{34}": '"', r"\`{}": "`", r"\ensuremath{\|}": "‖"}
    for n, command in enumerate(unknown):
        escaped = escaped.replace(command, f"\0{n}")
    text = reader.latex_to_text(escaped)
    for n, sign in enumerate(unknown.values()):
        text = text.replace(f"\0{n}", sign)
    return text


@pytest.mark.parametrize("text", [*hostile.TEXTS.values(), "plain", "", "L'Hôpital"])
def test_what_is_escaped_reads_in_latex_as_it_was_written(text):
    escaped = tex.escape(text)
    assert escaped.isascii() and "\n" not in escaped
    output = {"½": "1/2", "ễ": "ê", "ή": "η", "⁻³": "^-^3", "−": "-"}
    named = "\N{PILE OF POO}中\u202e\u0301\x1b"
    output |= {sign: f"[U+{ord(sign):04X}]" for sign in named}
    words = " ".join(text.split())
    for sign, instead in output.items():
        words = words.replace(sign, instead)
    assert read(escaped) == words


def test_numbers_are_mathematics_and_their_uncertainty_stands_behind():
    small = r"{\scriptstyle\,\pm\,%s}"
    power = r"\times 10^{-9}"
    assert latex.number(interval(0.324, 0.314, 0.334)) == ("$0.324$", f"${small % '0.010'}$")
    assert latex.number(interval(0.324, 0.314, 0.346)) == ("$0.324$", "${}^{+0.022}_{-0.010}$")
    assert latex.number(interval(0.324, 0.3141, 0.3351)) == ("$0.324$", f"${small % '0.011'}$")
    assert latex.number(interval(1.5e-9, 1.4e-9, 1.8e-9)) == (
        "$1.50$",
        f"${{}}^{{+0.30}}_{{-0.10}}{power}$",
    )
    assert latex.number(number(-1.5e-9)) == ("$-1.50$", f"${{}}{power}$")
    assert latex.number(plus_minus(0.15, 0.01)) == ("$0.150$", r"${}\pm 0.010$")
    assert latex.number(count(20_000)) == ("$20{,}000$", "")
    assert latex.number(number(float("inf"))) == (r"$\infty$", "")
    assert latex.number(share(0.12)) == ("$12.0$", r"${}\,\%$")
    assert latex.number(number(float("nan"))) == ("n/a", "")


def test_bold_is_what_a_test_tells_apart_and_never_a_zero(tables):
    close = [row("a"), row("b", variance=1.03)]
    (tied,) = tables(close).values()
    assert r"\textbf" not in tied and r"\mathbf" not in tied and "Bold" not in tied
    (message,) = tables([*close, row("c", variance=9.0), exactly(0.0, estimator="exact")]).values()
    result = {line[1]: line for line in cells(message)}
    assert list(result) == ["exact", r"\textbf{a}", r"\textbf{b}", "c"]
    bold = [name for name, line in result.items() if any("mathbf" in cell for cell in line)]
    assert bold == [r"\textbf{a}", r"\textbf{b}"]
    assert message.index("exact &") < message.rindex(r"\midrule") < message.index(r"\textbf{a}")
    assert "Bold marks the lowest MSE" in message


def test_a_table_holds_what_a_paper_wants(tables):
    result = tables(
        [
            row("rloo", {"samples": 2, "baseline": 1}, variance=2.0, evaluations=2),
            row("rloo", {"samples": 4, "baseline": 1}, evaluations=4),
            row("relaxed", {"samples": 1, "baseline": 2}, bias_sq=0.1, verdict="biased")
            | {"gradient_evaluations": 1, "precision": "variance within 3 % instead of 2 %"},
            row("noisy", bias_sq=0.1, variance=9.0, verdict="inconclusive"),
        ],
        suite="my suite",
    )
    (name,) = result
    table = LatexNodes2Text(math_mode="verbatim").latex_to_text(result[name])
    assert name == "toy-log_alpha" and r"\label{tab:my-suite:toy-log_alpha}" in result[name]
    assert result[name].startswith("% \\input this file") and "booktabs" in result[name]
    lines = {line[1].split()[0]: line for line in cells(result[name])}  # the last of an estimator
    assert r"\textbf{rloo} {\scriptsize (samples=4)}" in result[name] and "baseline=2" in table
    assert "Knobs with one value" in table and "baseline=1" in table
    assert lines["relaxed"][0] == r"\ensuremath{\circ}\ensuremath{\ddagger}"
    assert lines["relaxed"][-2:] == ["$1 + 1$", "$1.00$"]
    assert lines["rloo"][2] == "$< 0.894$"  # % of √(2/10⁵)/0.5: the bias may be zero
    assert lines["noisy"][0] == r"\ensuremath{\odot}\ensuremath{\dagger}"
    for said in ("biased", "inconclusive", "backward", "precision", "excludes 0"):
        assert said in table


def test_where_the_truth_is_unknown_neither_bias_nor_mse_are_shown(tables):
    unknown = dict.fromkeys(("bias_sq", "bias_sq_high", "relative_bias", "mse"), float("nan"))
    (table,) = tables([row("a") | unknown, row("b", variance=9.0) | unknown]).values()
    assert not {"mse", "bias"} & set(re.findall(r"\w+", table.split(r"\midrule")[0]))
    assert "sorted by the variance" in table and r"$\mathbf{1.00}$" in table


def test_tables_are_the_same_as_parquet(write, tmp_path):
    write(list(rows())[:7])
    for path in (tmp_path / "tables").glob("*.csv"):
        frame = pd.read_parquet(path.with_suffix(".parquet"))
        pd.testing.assert_frame_equal(frame, pd.read_csv(path), check_dtype=False, rtol=1e-14)


def test_a_paper_with_hostile_tables_compiles(write, tmp_path):
    cited = {"hostile": f"{hostile.ALL}, 2024", "relaxed": 'Ðé & Ł, "λ {%} 中", 2024.'}
    write(hostile_rows(), controls=CONTROLS, references=cited, suite=hostile.TEXTS["tex"])
    result = sorted((tmp_path / "tables").glob("*.tex"))
    assert len(result) == 10
    for table in result:
        text = table.read_text(encoding="utf-8")
        assert text.isascii()
        LatexWalker(text, tolerant_parsing=False).get_latex_nodes()
    if not shutil.which("pdflatex"):
        pytest.skip("pdflatex is not installed: the tables were parsed, not compiled")
    inputs = [f"\\input{{tables/{path.name}}}" for path in result]
    row_ends = rf"\begin{{tabular}}{{l}} a \\ {tex.escape('[x]')} \end{{tabular}}"
    body = [*inputs, tex.escape(hostile.ALL), row_ends]
    text = "\n".join([PREAMBLE, *body, r"\end{document}"])
    (tmp_path / "paper.tex").write_text(text, encoding="ascii")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper"]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    log = (tmp_path / "paper.log").read_text(encoding="latin-1")
    assert made.returncode == 0, log[-3000:]
    assert "Missing character" not in log and "Overfull" not in log and "bold" not in log
