"""Ways to degrade samples: modality dropout, missing-modality protocols, noise, and evaluation conditions."""
