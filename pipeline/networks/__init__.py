"""Networks: architectures, their layers, test-time augmentation and .keras files."""
