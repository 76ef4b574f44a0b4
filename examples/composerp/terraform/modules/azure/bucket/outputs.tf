output "name" {
  description = "The name of the account."
  value       = azurerm_storage_account.this[""].name
}

output "id" {
  description = "The account, as roles name it."
  value       = azurerm_storage_account.this[""].id
}
