"""The input of a prediction: an answer, how sure, and a button; ipywidgets 7.7 and 8."""

from html import escape
from typing import TYPE_CHECKING, Any

import ipywidgets

if TYPE_CHECKING:
    from .predictions import Prediction

_SURE = (5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99, 100)  # percent
_LABELS = {"description_width": "9em"}
_LAYOUT = {"width": "auto", "max_width": "44em"}


class PredictionInput(ipywidgets.VBox):
    """What `Prediction.ask` shows.

    Attributes:
        answer, sure, button: the controls, in the order of the Tab key.
        status: one line below them.
    """

    def __init__(self, prediction: "Prediction"):
        self._prediction = prediction
        guess = prediction.guess
        answered = guess.answer is not None and prediction.takes(guess.answer)
        if prediction.options:
            # Not radio buttons: JupyterLab takes the arrow keys that move among them.
            self.answer = ipywidgets.ToggleButtons(
                options=prediction.options,
                value=guess.answer if answered else None,
                description="I expect",
                style=_LABELS | {"button_width": "auto"},
                layout={"width": "100%"},
            )
            self.answer.observe(self._chosen, names="value")
        else:
            self.answer = ipywidgets.Text(
                value=f"{guess.answer:g}" if answered else "",
                placeholder=f"a number{', in ' + prediction.unit if prediction.unit else ''}",
                description="I expect",
                # Sent as a whole: an echo of its beginning could overwrite what was typed since.
                continuous_update=False,
                style=_LABELS,
                layout={"width": "22em"},
            )
        levels = [(f"{level} %", level / 100) for level in sure_levels(prediction.chance)]
        known = answered and guess.sure in [value for _, value in levels]
        self.sure = ipywidgets.Dropdown(
            options=levels,
            value=guess.sure if known else None,
            description="How sure?",
            style=_LABELS,
            layout={"width": "22em"},
        )
        self.button = ipywidgets.Button(
            description="Keep my prediction", layout={"width": "max-content"}
        )
        self.button.on_click(self._keep)
        self.status = ipywidgets.HTML()
        right = f"; right means {prediction.right_means}" if prediction.right_means else ""
        heading = ipywidgets.HTML(f"<strong>{escape(prediction.label)}</strong>{escape(right)}")
        super().__init__(
            [heading, self.answer, self.sure, self.button, self.status], layout=_LAYOUT
        )
        if answered:
            self._tell(self._kept())
        elif guess.shown:
            self._tell("The result has been shown: an answer is kept, but does not count.")

    def _keep(self, _button: object = None) -> None:
        prediction = self._prediction
        if self.sure.value is None:
            return self._tell("Say how sure you are that this is right.")
        try:
            answer = self.answer.value
            if answer is None:
                raise ValueError("Choose one.")
            answer = answer if prediction.options else prediction.read(answer)
        except ValueError as problem:
            return self._tell(str(problem))
        note = prediction.keep(answer, self.sure.value)
        self._tell(" ".join(filter(None, (self._kept(), note))))

    def _chosen(self, change: dict) -> None:
        if change["new"] is not None:  # said in words, for a screen reader
            self._tell(f"Chosen: {change['new']}. Keep it with how sure you are.")

    def _kept(self) -> str:
        guess = self._prediction.guess
        sure = f"{guess.sure * 100:.0f} % sure"
        kept = f"✓ Kept: {self._prediction.show(guess.answer)}, {sure}."
        if guess.late:
            return f"{kept} The result had been shown: this one does not count."
        if guess.settled:
            return f"{kept} The result has been shown: your first answer stays."
        return f"{kept} You may change it until you see the result."

    def _tell(self, text: str) -> None:
        self.status.value = f'<span role="status">{escape(text)}</span>'

    def bundle(self) -> dict[str, Any]:
        """What a cell's output holds: the view, and the whole text, which ipywidgets would cut."""
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        return {"text/plain": repr(self), "application/vnd.jupyter.widget-view+json": view}

    def __repr__(self) -> str:  # the cell's text output: the same in every run
        prediction = self._prediction
        unit = f", in {prediction.unit}" if prediction.unit else ""
        right = " · ".join(prediction.options) or f"right means {prediction.right_means}"
        return (
            f"✎ your prediction · {prediction.label}{unit}\n  {right}\n  Run this cell to answer."
        )


def sure_levels(chance: float) -> list[int]:
    """Percentages to choose from: the chance of a blind guess, and the round ones above it.

    Example:
        >>> sure_levels(1 / 3)
        [33, 40, 50, 60, 70, 80, 90, 95, 99, 100]
    """
    lowest = round(100 * chance) or _SURE[0]
    return sorted({lowest, *(level for level in _SURE if level > lowest)})
