#!/bin/sh
# What docs/results.md is made of, from a clean checkout with ../shared beside it and the
# environment active. Run it again to resume where a command stopped. schedule.start_lr and end_lr
# are null, as they were in the experiments when the kept runs were made: they warmed up.
set -eu

photos() {
    python run.py "$@" dataset=tfrecords dataset.root=../shared/data/oxford102 \
        dataset.image_size=96 model=mobilenet model.alpha=0.25 model.input_scaling=symmetric \
        model.weights=../shared/weights/mobilenet_2_5_224_tf_no_top.h5 loop.epochs=10 \
        schedule.start_lr=null schedule.end_lr=null
}

# The factor of the learning rate, by another seed than those of the comparison
photos -m experiment=original,accumulate_8_lr_x8 schedule.max_lr=1e-4,3e-4,1e-3 seed=0 name=pilot

# The eight comparisons; 1e-5 x 30 for all of them
photos sweep=notebook schedule.max_lr=3e-4 seed=1,2,3

# What is kept here: no photos, no weights, nothing of the machine; pictures in 64 colours
(cd outputs && find notebook \( -path '*/.hydra/config.yaml' -o -path '*/.hydra/overrides.yaml' \
    -o -name history.json -o -name status.json -o -name classes.json \
    -o -name valid_labels.json -o -name valid_preds.json \) -exec cp --parents {} ../docs/results/ \;)
find docs/results -name status.json \
    -exec sed -i '/^ "\(working_directory\|host\|pid\)":/d' {} +
python -m flowerexp compare docs/results/notebook --output outputs/comparison
mkdir -p docs/results/comparison
cp outputs/comparison/comparison.* docs/results/comparison/
python - <<'END'
from pathlib import Path
from PIL import Image
for path in Path("outputs/comparison/pictures").glob("pair-*.png"):
    Image.open(path).convert("RGB").quantize(64).save(
        Path("docs/results/comparison") / path.name, optimize=True)
END
