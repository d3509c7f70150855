"""What makes a checkpoint playable: editors (diffusers) and vision-language models (transformers)."""

import logging

# Importing diffusers touches two picture processors of pipelines that nobody here asked for, each of which
# would be announced as missing torchvision.
logging.getLogger("transformers.utils.import_utils").addFilter(
    lambda record: "requires torchvision (not installed)" not in record.getMessage()
)
