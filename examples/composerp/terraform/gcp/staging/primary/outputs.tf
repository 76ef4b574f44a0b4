# From platform.regions.primary, in staging

output "cluster_endpoint" {
  description = "The address of the API server."
  value       = module.cluster.endpoint
}

output "cluster_name" {
  description = "The name of the cluster."
  value       = module.cluster.name
}

output "identity_secrets_composerp_staging" {
  description = "The annotation of the service account secrets."
  value       = module.identity_secrets_composerp_staging.annotation
}
