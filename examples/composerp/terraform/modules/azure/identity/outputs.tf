output "annotation" {
  description = "What the service account says to take the identity."
  value       = { "azure.workload.identity/client-id" = azurerm_user_assigned_identity.this.client_id }
}
