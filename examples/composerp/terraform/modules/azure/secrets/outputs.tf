output "id" {
  description = "The vault, as roles name it."
  value       = azurerm_key_vault.this.id
}
