"""What may happen to a sample: modality dropout, missing-modality protocols, noise, and the conditions made of them."""
