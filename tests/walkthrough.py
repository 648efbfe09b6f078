# %% [markdown]
# # From a table to a model that says what it saw
#
# Train on generated scenes, look at what is left when a modality is missing, and use the model. Each cell takes seconds
# on two CPU cores, and nothing is downloaded.

# %%
import numpy as np

import robusttune
from robusttune.data.sources import Shapes

# %% [markdown]
# ## Train
#
# `fit` is the command `robusttune fit`: the same checks, the same run folder. The settings make the run short.

# %%
run = robusttune.fit("demo", {"trainer.max_epochs": 2, "data.source.train": 512, "data.source.val": 128})
run.metrics  # noqa: B018, a notebook shows it

# %% [markdown]
# ## Predict
#
# A caption and a picture, each of which may be missing. A prediction says which modalities it used.

# %%
scenes = Shapes(test=64)
table = scenes.read("test")
assert table is not None
picture, caption = scenes.draw("test", 0), table["text"][0].as_py()
model = run.load()
print(model.predict(image=picture, text=caption))
print(model.predict(image=picture))
print(model.predict(text=caption))
print(model.predict())

# %% [markdown]
# What each modality alone would have said:

# %%
prediction = model.predict(image=picture, text=caption, explain=True)
for alone in prediction.alone.values():
    print(alone)

# %% [markdown]
# ## Many samples

# %%
pictures = [np.asarray(scenes.draw("test", row)) for row in range(64)]
captions = table["text"].to_pylist()
predictions = model.predict(images=pictures, texts=captions)
labels = [names[0] for names in table["labels"].to_pylist()]
print(f"{np.mean(np.array(labels) == predictions.labels):.2f} of the labels are right")

# %% [markdown]
# ## Measure
#
# The numbers of `robusttune test`, under any conditions, with 95 % intervals.

# %%
model.evaluate(scenes, conditions=["complete", "no_image", "no_text", "noisy_text_typos_3"])
