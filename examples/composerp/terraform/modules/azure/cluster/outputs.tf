output "name" {
  description = "The name of the cluster."
  value       = azurerm_kubernetes_cluster.this.name
}

output "oidc_issuer" {
  description = "Who signs the tokens of service accounts."
  value       = azurerm_kubernetes_cluster.this.oidc_issuer_url
}

output "pull_principal_id" {
  description = "Who pulls images."
  value       = azurerm_kubernetes_cluster.this.kubelet_identity[0].object_id
}
