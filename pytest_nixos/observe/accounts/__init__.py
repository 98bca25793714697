"""Accounts: who they are, and what each may do as another by PAM, sudo, doas and polkit."""
