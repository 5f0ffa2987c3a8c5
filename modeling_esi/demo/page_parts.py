"""What the app shows, as HTML in which every word from outside is escaped. Pictures stand in the page: no file is
written for them, and nothing is fetched from elsewhere.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence

from datasets_scripts.records import ECGRecord

from .answers import LabelScore
from .archives import Neighbour

NOTICE = (
    "<strong>Not a medical device.</strong> For research. Scores are no probabilities of disease, and reports can be "
    "fluent and wrong. Decisions about a patient belong to a clinician who has read the ECG."
)
PRIVACY = (
    "Files are read and deleted at once; the recording stays in this server's memory for half an hour at most. Nothing "
    "is stored or logged. Do not upload patients' data to a server that you do not run yourself."
)
CSS = """
.gradio-container { max-width: 1280px !important; margin: 0 auto !important; }
.esi-head h1 { font-size: 1.5rem; margin: 0 0 .25rem; }
.esi-head p { margin: .15rem 0; }
.esi-notice { border-left: 4px solid #d97706; padding: .5rem .75rem; margin-top: .5rem; background: var(--block-background-fill); }
.esi-small { font-size: .85rem; color: var(--body-text-color); opacity: .75; }
.esi-problem { border-left: 4px solid #dc2626; padding: .5rem .75rem; background: var(--block-background-fill); overflow-wrap: anywhere; }
.esi-facts { padding: .25rem 0; overflow-wrap: anywhere; }
.esi-facts ul { margin: .25rem 0 0; padding-left: 1.1rem; }
.esi-page { overflow-x: auto; contain: inline-size; border: 1px solid var(--border-color-primary); background: white; }
.esi-page img { display: block; width: 100%; }
.esi-empty { padding: 3rem 1rem; text-align: center; border: 1px dashed var(--border-color-primary); }
.esi-table { width: 100%; border-collapse: collapse; font-size: .92rem; }
.esi-table, .esi-table thead, .esi-table tbody, .esi-table tr { border: 0 !important; }
.esi-table td:first-child { min-width: 7.5rem; }
.esi-table th { text-align: left; font-weight: 600; }
.esi-table th, .esi-table td { padding: .3rem .5rem !important; border: 0 !important; border-bottom: 1px solid var(--border-color-primary) !important; vertical-align: middle; overflow-wrap: anywhere; }
.esi-table .num { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; width: 1%; }
.esi-bar { background: var(--border-color-primary); height: .6rem; min-width: 2.5rem; border-radius: .3rem; overflow: hidden; }
.esi-bar div { background: #2563eb; height: 100%; }
.esi-report { font-size: 1.05rem; padding: .25rem 0; overflow-wrap: anywhere; }
"""  # noqa: E501  one rule on a line
READING = '<div class="esi-empty">Reading ...</div>'
EMPTY = '<div class="esi-empty">Upload a recording, or choose an example.</div>'
_BRACES = str.maketrans({"$": "&#36;", "{": "&#123;", "}": "&#125;", "`": "&#96;"})  # the component fills in templates


def escaped(text: str) -> str:
    """Text as HTML shows it, and nothing else.

    >>> escaped("<b>${x}</b>")
    '&lt;b&gt;&#36;&#123;x&#125;&lt;/b&gt;'
    """
    return html.escape(text).translate(_BRACES)


def head(model: str, archive: str) -> str:
    """What stands above all: what this is, what it is not, and what becomes of files."""
    return (
        '<div class="esi-head"><h1>ESI: ECGs and text</h1>'
        f'<p class="esi-small">Model: {escaped(model)}. Recordings are compared with {escaped(archive)}.</p>'
        f'<div class="esi-notice">{NOTICE}</div><p class="esi-small">{PRIVACY}</p></div>'
    )


def problem(sentence: str) -> str:
    """One sentence that says what is wrong."""
    return f'<div class="esi-problem" role="alert">{escaped(sentence)}</div>'


def remark(sentence: str) -> str:
    """A sentence in small letters."""
    return f'<p class="esi-small">{escaped(sentence)}</p>'


def facts(record: ECGRecord, name: str, notices: Mapping[str, str]) -> str:
    """What was read, what had to be mended, and what looks odd. Identities never enter a record."""
    whose = [*([record.sex] if record.sex else []), *([f"{record.age:.0f} years"] if record.age is not None else [])]
    told = [f"{record.num_leads} leads", f"{record.sampling_rate:g} Hz", f"{record.duration:.1f} s", *whose]
    found = [f"Mended while reading: {repair.replace('_', ' ')}" for repair in record.repairs]
    found += [f"{kind[:1].upper()}{kind[1:]}: {detail}" for kind, detail in notices.items()]
    listed = "".join(f"<li>{escaped(line)}</li>" for line in found)
    return (
        f'<div class="esi-facts"><strong>{escaped(name)}</strong> &middot; {escaped(" · ".join(told))}'
        f"{f'<ul>{listed}</ul>' if listed else ''}</div>"
    )


def page(png: bytes, described: str) -> str:
    """A picture that stands in the page itself; on a narrow screen it scrolls sideways."""
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    width = int.from_bytes(png[16:20], "big")  # of the PNG: no picture is made larger than it is
    size = f"min-width:min(720px, {width}px); max-width:{width}px"
    return f'<div class="esi-page" tabindex="0"><img src="{source}" style="{size}" alt="{escaped(described)}"></div>'


def scores(results: Sequence[LabelScore], archive: str) -> str:
    """A table with a bar for each label."""
    one_is_true = results[0].share_of_all is not None
    rows = "".join(_score_row(result) for result in results)
    what = "share" if one_is_true else "rank"
    told = (
        "Share: softmax over these labels, as if exactly one of them were true."
        if one_is_true
        else f"Rank: of {archive}, the share that the sentence fits less well than this recording."
    )
    return (
        f'<table class="esi-table"><thead><tr><th>label</th><th></th><th class="num">{what}</th>'
        f'<th class="num">cosine</th></tr></thead><tbody>{rows}</tbody></table>{remark(told)}'
    )


def _score_row(result: LabelScore) -> str:
    share = result.share_below if result.share_of_all is None else result.share_of_all
    return (
        f'<tr><td>{escaped(result.label)}</td><td><div class="esi-bar"><div style="width:{share:.1%}"></div></div></td>'
        f'<td class="num">{share:.0%}</td><td class="num">{result.similarity:.2f}</td></tr>'
    )


def report(text: str) -> str:
    """The report, or that it is empty."""
    return f'<div class="esi-report">{escaped(text) or "(the model wrote nothing)"}</div>'


def neighbours(found: Sequence[Neighbour], archive: str) -> str:
    """A table of recordings that are near, with what is said of them."""
    rows = "".join(
        f'<tr><td>{escaped(near.text)}<div class="esi-small">{escaped(near.patient)}</div></td>'
        f'<td class="num">{near.similarity:.2f}</td></tr>'
        for near in found
    )
    return (
        '<table class="esi-table"><thead><tr><th>report</th><th class="num">cosine</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>{remark(f'Of {archive}, those whose embeddings are nearest.')}"
    )
