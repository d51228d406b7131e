"""The paper's numbers under the names of our figures."""

import pytest

from calibcourse.reproduce.paper import published


def test_a_row_of_table_1_is_told_by_the_optimizers_labels():
    assert published("test_kce") == {
        "GD": (0.97, 0.01),
        "SGD": (0.97, 0.01),
        "AdamW": (0.21, 0.22),
        "Muon": (-0.16, 0.31),
        "SAM": (0.98, 0.01),
    }
    words = r"^column must be one of test_ece, test_kce, train_ece, train_kce; got 'train_loss'$"
    with pytest.raises(ValueError, match=words):
        published("train_loss")
