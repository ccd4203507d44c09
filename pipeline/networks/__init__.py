"""Networks: architectures, their layers, test-time augmentation and .keras files."""

import keras

# Whatever ~/.keras/keras.json says for the user's other work.
keras.config.set_image_data_format("channels_last")
keras.config.set_floatx("float32")
keras.config.set_epsilon(1e-7)
