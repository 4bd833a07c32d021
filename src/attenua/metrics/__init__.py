"""How good pictures are: FID, KID and LPIPS."""
