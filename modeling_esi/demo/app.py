"""The app: what stands where, and what happens when something is pressed. Needs Gradio (extra `demo`)."""

from __future__ import annotations

from typing import Any

import gradio as gr

from . import page_parts
from .answers import ECGAnswers
from .examples import EXAMPLES, LABELS
from .handlers import EACH, ONE, Handlers, Shown, label_choices
from .uploads import MAX_BYTES, MAX_FILES

SECONDS_KEPT = 1800  # a session's recording in memory
MAX_SESSIONS = 100
MAX_WAITING = 20
_UNITS = ["", "mV", "uV", "V"]


def build_app(answers: ECGAnswers) -> gr.Blocks:
    """The app of a model. Nothing of it is fetched from elsewhere, and nothing is told to anyone."""
    handlers = Handlers(answers)
    with gr.Blocks(title="ESI: ECGs and text", analytics_enabled=False, delete_cache=(60, 300)) as app:
        gr.HTML(page_parts.head(answers.name, answers.archive.name))
        shown = gr.State(None, time_to_live=SECONDS_KEPT)
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                files, described = _upload_fields()
                choice = gr.Dropdown(
                    list(EXAMPLES), value=None, label="Or an example", elem_id="example", filterable=False
                )
                facts = gr.HTML(elem_id="facts")
            with gr.Column(scale=3, min_width=320):
                page = gr.HTML(page_parts.EMPTY, elem_id="page")
                start = gr.Slider(0, 1, value=0, step=0.5, label="First second shown", visible=False, elem_id="start")
        answered = _answer_fields(handlers, shown, start)
        questions = [(handlers.page, [shown, start], page), *answered]
        outputs = [output for _, _, output in questions]
        for arrives, reads, inputs, other in (
            (files.upload, handlers.read_files, [files, *described], choice),
            (choice.input, handlers.choose_example, [choice], files),
        ):
            arrived = arrives(_clear(len(answered), 3), None, [*outputs, shown, facts, other], queue=False, **_QUIET)
            arrived = arrived.then(reads, inputs, [shown, facts], **_QUIET)
            arrived = arrived.then(_slider(handlers), [shown], [start], **_QUIET)
            arrived = arrived.then(lambda: None, None, files, queue=False, **_QUIET)
            _ask_all(arrived, questions)
        moved = start.release(_clear(len(answered), 0), None, outputs, queue=False, **_QUIET)
        _ask_all(moved, questions)
    return app.queue(max_size=MAX_WAITING)


def launch_app(app: gr.Blocks, port: int | None = None, share: bool = False, **options: Any) -> Any:
    """Serve the app; `options` are those of Gradio's `launch`, and what that gives is given back.

    `port` None is Gradio's choice (7860, or the next that is free; on a Space what the Space says). With `share`, a
    public link through Gradio's servers.
    """
    settings = {
        "theme": gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        "css": page_parts.CSS,
        "max_file_size": MAX_BYTES,
        "state_session_capacity": MAX_SESSIONS,
        "footer_links": [],
        "enable_monitoring": False,
        "ssr_mode": False,  # a second server, in Node
        "show_error": False,  # what was not foreseen is for the log, not for the page
    }
    return app.launch(server_port=port, share=share, **settings | options)


# ----- fields --------------------------------------------------------------------------------------------------------

# one at a time over all sessions and all kinds of questions: a pipeline remembers the texts of its last call
_QUIET: dict[str, Any] = {
    "api_visibility": "private",
    "show_progress": "minimal",
    "concurrency_id": "model",
    "concurrency_limit": 1,
}


def _upload_fields() -> tuple[gr.File, list[Any]]:
    """The upload, and what files do not say: rate, leads, unit."""
    files = gr.File(
        label=f"Files of one recording, up to {MAX_BYTES >> 20} MB", file_count="multiple", height=150, elem_id="files"
    )
    formats = "DICOM, HL7 aECG, MUSE XML, EDF, CSV, .npy, or WFDB: the .hea together with its .dat or .mat"
    gr.HTML(page_parts.remark(f"{formats}. Up to {MAX_FILES} files."))
    with gr.Accordion("For CSV and .npy", open=False):
        gr.HTML(page_parts.remark("What these files do not say: fill it in before the upload."))
        rate = gr.Number(label="Sampling rate (Hz)", value=None, elem_id="sampling_rate")
        leads = gr.Textbox(
            "", label="Leads, in the order of the columns", placeholder="I, II, III, ...", elem_id="leads"
        )
        unit = gr.Dropdown(_UNITS, value="", label="Unit", elem_id="unit")
    return files, [rate, leads, unit]


def _answer_fields(handlers: Handlers, shown: gr.State, start: gr.Slider) -> list[tuple[Any, list[Any], Any]]:
    """Scores, report, neighbours and attribution; returns what is asked of each recording: function, inputs, output."""
    with gr.Row():
        with gr.Column(min_width=320):
            gr.Markdown("### Scores")
            scores = gr.HTML(elem_id="scores")
            labels = gr.Textbox(
                "\n".join(LABELS), label="Labels, one on a line", lines=6, max_lines=14, elem_id="labels"
            )
            how = gr.Radio([EACH, ONE], value=EACH, label="Labels are judged", elem_id="how")
            template = gr.Textbox(
                handlers.answers.template, label="Sentence of a label, {} where it goes", elem_id="template"
            )
            again = gr.Button("Score these labels", variant="primary", elem_id="score")
        with gr.Column(min_width=320):
            gr.Markdown("### Report")
            report = gr.HTML(elem_id="report")
            gr.Markdown("### Nearest recordings")
            nearest = gr.HTML(elem_id="nearest")
    with gr.Accordion("What raised a score", open=False):
        target = gr.Dropdown(list(LABELS), value=LABELS[0], label="Label", elem_id="target")
        explain = gr.Button("Show", elem_id="explain")
        attribution = gr.HTML(elem_id="attribution")

    asked = [shown, start, labels, template, how]
    for scored in (again.click, how.input):
        scored(handlers.scores, asked, scores, **_QUIET)
    labels.change(lambda text: gr.Dropdown(**label_choices(text)), labels, target, **_QUIET)
    explain.click(handlers.attribution, [shown, start, target, template], attribution, **_QUIET)
    questions = [(handlers.scores, asked, scores)]
    if handlers.answers.writes:
        questions.append((handlers.report, [shown, start], report))
    else:
        report.value = page_parts.remark("This model has no decoder: it writes no reports.")
    return [*questions, (handlers.nearest, [shown, start], nearest), (lambda: "", None, attribution)]


def _clear(num_answers: int, num_others: int) -> Any:
    """What was told of one recording, or of other seconds, does not stay while the next one is read."""
    return lambda: [page_parts.READING, *[""] * num_answers, *[None] * num_others]


def _ask_all(event: Any, questions: list[tuple[Any, list[Any], Any]]) -> None:
    """One question after the other, each shown as soon as it is answered."""
    for function, inputs, output in questions:
        event = event.then(function, inputs, output, **_QUIET)


def _slider(handlers: Handlers) -> Any:
    """Where to begin, for recordings that are longer than what the model reads at a time."""

    def reach(shown: Shown | None) -> Any:
        last = handlers.last_start(shown)
        return gr.Slider(0, max(last, 1.0), value=0, visible=last > 0)

    return reach
