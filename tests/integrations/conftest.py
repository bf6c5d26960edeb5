"""The frameworks are imported once, without torchvision, before a test module imports them by name."""

from without_torchvision import imported

imported("lightning")
imported("transformers")
