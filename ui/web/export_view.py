"""On the page Live: the model of a run that is over, to be written, taken away and served."""

import streamlit as st

from federation.runs.storage import size_text
from ui.web import exporting, pending
from ui.web.exporting import LARGEST, arguments, command, place, python
from ui.web.figures import progress
from ui.web.shell import acting, called, plain, problems, shelf
from ui.web.store import Opened

KEY = "export"
"""In the URL: whether this part is open."""
FORMS = {"adapter": "adapter", "whole": "whole model"}


def show(opened: Opened) -> None:
    """Show it, folded away until it is wanted."""
    with st.expander(
        "Export and serve the model", icon=":material/output:", key=KEY, bind="query-params"
    ) as part:
        if not part.open:
            return
        if why := exporting.why_not(opened.run):
            st.caption(plain(why))
            return
        with problems():
            left, right = st.columns([2, 3], gap="medium")
            with left:
                round, whole = choice(opened)
                written(opened, round, whole=whole)
            with right:
                used(opened, round, whole=whole)


def choice(opened: Opened) -> tuple[int, bool]:
    """Ask which round's model is wanted, and in which form."""
    there = exporting.rounds(opened.run)
    kept = list(there)
    round = st.selectbox(
        "After round", kept, len(kept) - 1, format_func=there.__getitem__, key="export-round",
        help="rounds whose state is kept; where nothing else is said no figure chose it",
    ) or kept[-1]  # fmt: skip
    form = st.segmented_control(
        "As", list(FORMS), default="adapter", format_func=FORMS.__getitem__, required=True,
        key="export-as",
        help="the adapter alone, which PEFT and vLLM put beside the base model; or all weights with"
        " the adapter added to them, in float32",
    )  # fmt: skip
    return round, form == "whole"


def written(opened: Opened, round: int, *, whole: bool) -> None:
    """Offer to write the files, or to take them away."""
    run, runs = opened.run, shelf().folder
    folder = place(run, round, whole=whole)
    if not folder.is_dir():
        job = exporting.started(runs, run, round, whole=whole)
        if not pending.follow(job) and st.button(
            "Write the files", type="primary", icon=":material/save:", key="write"
        ):
            said = "they are being written"
            acting(lambda: exporting.start(runs, run, round, whole=whole), said, anew=True)
        return
    size, name = exporting.size(folder), f"{opened.name}-{folder.name.rpartition('-')[0]}"
    st.caption(
        f"The model after round {round} of {progress(run).done}: "
        f"{len(exporting.files(folder))} files, {size_text(size)}, in"
    )
    st.code(called().text(str(folder.absolute())), language=None, wrap_lines=True)
    if size > LARGEST:
        st.caption(f"Larger than {size_text(LARGEST)}: take it from that folder of this machine.")
        return
    st.download_button(
        f"Download ({size_text(size)})", lambda: exporting.packed(folder, name), f"{name}.zip",
        "application/zip", icon=":material/download:", key="download", on_click="ignore",
    )  # fmt: skip


def used(opened: Opened, round: int, *, whole: bool) -> None:
    """Show how it is written, loaded and served."""
    folder = place(opened.run, round, whole=whole)
    tabs = st.tabs(["Python", "Serve", "Command line"])
    with tabs[0]:
        if folder.is_dir():
            st.code(called().text(python(folder.absolute())), language="python", wrap_lines=True)
        else:
            st.caption("How to load it is said here once the files are written.")
    with tabs[1]:
        args = ["serve", str(opened.run.path.absolute()), "--round", str(round)]
        st.code(called().text(command(args)), language="bash", wrap_lines=True)
        st.caption(
            "Serves the base model and this round behind one address of this machine, until"
            " Ctrl-C. Without vLLM add `--engine transformers`. Playground asks such a server if"
            " you name its address there."
        )
    with tabs[2]:
        args = arguments(opened.run, round, whole=whole)
        st.code(called().text(command(args)), language="bash", wrap_lines=True)
        st.caption("What the button does.")
