"""`calibcourse build`: write, execute and check both notebooks of a lesson from its one source.

**How an author writes a lesson.** The source is `solutions/NN_name.py`, a jupytext percent script
(no YAML header needed), the only file edited by hand:

    # %% [markdown]
    # # 01 · Confidence and ECE
    #
    # One sentence that says what the reader will be able to do.
    #
    # {{header: lesson 00; a first course in PyTorch}}

    # %%
    # {{bootstrap}}

    # %%
    from calibcourse.exercises import lesson_01 as ex

    # %% tags=["nbval-ignore-output"]
    history = fit(model, data, lr=0.1, steps=300)

    # %%
    def my_ece(logits, target, n_bins=15):
        '''Docstring of the stub: shapes, what to return.'''
        ### BEGIN SOLUTION
        return ...
        ### END SOLUTION

- `{{header: PREREQUISITES}}`: a line of its own, once, in the first cell (which opens with the
  title, `# # ...`). It becomes "9 min to read · 20 s to run on 2 CPU cores · 0.9 GB of memory ·
  prerequisites: PREREQUISITES" and, once the course is published, the Binder and Colab badges.
  Minutes are words at 150 a minute; seconds and memory are measured at each build, rounded up to
  5 s and 0.1 GB and kept in the notebook's metadata, `{"calibcourse": {"seconds": 20,
  "peak_memory_gb": 0.9, "cores": 2}}`, so that checking needs no execution. Stored figures stay
  while a new measurement is within one such step of them.
- `# {{bootstrap}}`: the only line of a code cell, once. It becomes the cell that finds or installs
  `calibcourse` (`bootstrap.py`), the same in every notebook, silent where the package is there.
- `### BEGIN SOLUTION` and `### END SOLUTION`: lines of their own, in one code cell. The learner's
  copy has `...  # your code here` at the indentation of BEGIN instead; the copy with solutions has
  the block without its markers. Whatever resembles a marker but is not one stops the build.
- The one tag is `nbval-ignore-output`: its outputs are not compared when the notebook is tested.
  Progress bars are off in builds and tests, so `fit` alone does not call for the tag.
- A widget is stored as its text (its repr), which must be the same in every run: the pictures
  beside it are its static twin's. The size and style rules of a lesson are in `rules.py`.

A cell's id is a hash of the lesson and the cell's source, so an edit changes one id and no other.
"""
