"""What came out of Sparring, ready to be shared: folders with cards, as the Hugging Face hub has them."""
