"""Write a tokenizer of 2,000 tokens into a folder: AIPerf needs one even where it counts none."""

import sys
from pathlib import Path

import aiperf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast


def main() -> None:
    """Train on the text that AIPerf makes its prompts of."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=2000, special_tokens=["<s>", "</s>"])
    tokenizer.train([str(text) for text in Path(aiperf.__file__).parent.rglob("*.txt")], trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    made.save_pretrained(sys.argv[1])


main()
