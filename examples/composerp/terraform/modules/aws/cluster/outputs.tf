output "name" {
  description = "The name of the cluster."
  value       = aws_eks_cluster.this.name
}

output "endpoint" {
  description = "The address of the API server."
  value       = aws_eks_cluster.this.endpoint
}

output "security_group_id" {
  description = "The security group of the nodes."
  value       = aws_eks_cluster.this.vpc_config[0].cluster_security_group_id
}

output "autoscaling_groups" {
  description = "The groups of the nodes, by pool and zone."
  value       = { for key, group in aws_eks_node_group.this : key => group.resources[0].autoscaling_groups[0].name }
}

output "oidc_issuer" {
  description = "Who signs the tokens of service accounts."
  value       = replace(aws_eks_cluster.this.identity[0].oidc[0].issuer, "https://", "")
}

output "oidc_provider_arn" {
  description = "The same issuer, as IAM knows it."
  value       = aws_iam_openid_connect_provider.this.arn
}
