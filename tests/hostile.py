"""What a plugin may say to break a report: for every form that the report has."""

SCRIPT = "<script>alert('1')</script>"
TEXTS = {
    "html": f'{SCRIPT} " onload="x" &amp; </td></table> <!-- ]]>',
    "markdown": "a|b `c` **d** __e__ [f](javascript:1)\n| new | row |\n# title\n```\n$x$ \\",
    "csv": "=1+1, \"quoted\", 'single'; two\r\nlines\t\N{NO-BREAK SPACE}end",
    "tex": r"\input{/etc/passwd} \end{tabular} 50 % _a^b_ #1 & ~ $$ }{ ^^M \\[9cm] *--,, ''`` <>|",
    "unicode": "λ α π ×10⁻³ ‖g‖ ∞ − ≤ é ễ ß ½ Ω ή \N{PILE OF POO} 中 \u202e\u0301 \x1b[31m",
}
ALL = "\n".join(TEXTS.values())

# One text that breaks out of elements and of attributes alike.
EVIL = "<script>alert(1)</script>\"'&amp;<img src=x onerror=alert(1)>"
