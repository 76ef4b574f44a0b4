output "address" {
  description = "The name under which clients reach the store."
  value       = azurerm_postgresql_flexible_server.this.fqdn
}

output "replica_addresses" {
  description = "The names of the read replicas."
  value       = azurerm_postgresql_flexible_server.replica[*].fqdn
}
