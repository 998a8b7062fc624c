"""The built-in engine: Llama and Qwen2 models in torch behind OpenAI's protocol."""
