"""Where completions come from: one Protocol, and a provider for each source."""

from autopoiesis.errors import ProviderError, unknown_name
from autopoiesis.evolve.providers.base import Completion, CompletionRequest, Message, Provider

__all__ = ["PROVIDERS", "Completion", "CompletionRequest", "Message", "Provider", "provider"]

PROVIDERS = ("structural", "command", "openai")


def provider(
    name: str,
    *,
    command: str | None = None,
    model: str | None = None,
    base_url: str | None = None,
    key_variable: str = "OPENAI_API_KEY",
    timeout_s: float = 120.0,
) -> Provider:
    """The provider of that name. `command` belongs to `command`; `model`, `base_url` and `key_variable` to `openai`.

    Raises ProviderError for an unknown name or a setting that is missing.
    """
    if name == "structural":
        from autopoiesis.evolve.providers.structural import StructuralProvider

        return StructuralProvider()
    if name == "command":
        from autopoiesis.evolve.providers.command import CommandProvider

        if command is None:
            raise ProviderError("provider 'command' needs a command; name the program that answers prompts")
        return CommandProvider(command, timeout_s)
    if name == "openai":
        from autopoiesis.evolve.providers.openai import OpenAIProvider

        return OpenAIProvider(model, base_url, key_variable, timeout_s)
    raise ProviderError(unknown_name("provider", name, PROVIDERS))
