"""PASCAL-Context as MTLoRA uses it: the survey's pipeline at 448x448 and four of the five tasks."""

protocol = "pascal-survey"
tasks = ["semseg", "normals", "saliency", "human_parts"]
train_data = dict(
    dataset=dict(
        type="PascalContext",
        root="data/PASCALContext",
        split="train",
        transforms=dict(preset="survey-pascal-train", size=(448, 448)),
    ),
    batch_size=32,
    num_workers=4,
)
val_data = dict(
    dataset=dict(
        type="PascalContext",
        root="data/PASCALContext",
        split="val",
        transforms=dict(preset="survey-eval", size=(448, 448)),
    ),
    batch_size=8,
    num_workers=4,
)
# As the survey scores; whether the table of MTLoRA holds these or those at 448x448 is not known.
test_data = dict(
    dataset=dict(
        type="PascalContext",
        root="data/PASCALContext",
        split="val",
        transforms=dict(preset="survey-eval", size=(448, 448), labels=False),
    ),
    batch_size=1,
    num_workers=4,
)
