"""phi3_v for transformers 5: configuration, image processor, processor and model.

Importing this module registers them, so that `AutoModelForCausalLM`, `AutoModelForImageTextToText`,
`AutoProcessor`, `AutoImageProcessor`, `AutoConfig` and `pipeline("image-text-to-text", ...)` find them
without `trust_remote_code`.
"""

from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor
from transformers.models.auto import modeling_auto

# Some releases show this class at the top level only where torchvision is installed, which is not needed here.
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from .configuration import Phi3VConfig
from .image_processing import Phi3VImageProcessor
from .modeling import Phi3VForCausalLM, Phi3VModel
from .processing import Phi3VProcessor

AutoConfig.register("phi3_v", Phi3VConfig, exist_ok=True)
AutoModelForCausalLM.register(Phi3VConfig, Phi3VForCausalLM, exist_ok=True)
AutoModelForImageTextToText.register(Phi3VConfig, Phi3VForCausalLM, exist_ok=True)
AutoImageProcessor.register(Phi3VConfig, slow_image_processor_class=Phi3VImageProcessor, exist_ok=True)
AutoProcessor.register(Phi3VConfig, Phi3VProcessor, exist_ok=True)
# The pipeline looks here to decide whether to complain that it does not know the model.
modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES["phi3_v"] = Phi3VForCausalLM.__name__

__all__ = ["Phi3VConfig", "Phi3VForCausalLM", "Phi3VImageProcessor", "Phi3VModel", "Phi3VProcessor"]
