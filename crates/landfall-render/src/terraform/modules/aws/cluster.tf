variable "name" {
  type        = string
  description = "The name of the cluster."
}

variable "kubernetes_version" {
  type        = string
  description = "The minor version of Kubernetes."
}

variable "subnet_ids" {
  type        = list(string)
  description = "The private subnets of the control plane."
}

variable "subnet_ids_by_zone" {
  type        = map(string)
  description = "The private subnet of each zone, for the nodes."
}

variable "kms_key_arn" {
  type        = string
  description = "The key that encrypts Secrets, volumes and logs."
}

variable "private_api" {
  type        = bool
  description = "Whether the API server has a private address only."
}

variable "api_addresses" {
  type        = list(string)
  description = "Who may reach a public API server, as CIDR blocks."
  default     = []
}

variable "administrator_arns" {
  type        = set(string)
  description = "The IAM roles that administrate the cluster; nobody else gets in before role bindings are applied."
}

variable "pools" {
  type = map(object({
    count        = number
    machine_type = string
    zones        = list(string)
    dedicated    = bool
  }))

  description = "The node pools; their nodes are spread evenly over their zones."
}

variable "identity" {
  type = object({
    issuer_url   = string
    client_id    = string
    groups_claim = string
  })

  description = "Who says who somebody is; when it is not set, only IAM does."
  default     = null
}

locals {
  # A group in each zone: an autoscaler or a repair keeps the spread that the file declares.
  groups = merge([
    for pool, settings in var.pools : {
      for index, zone in settings.zones : "${pool}-${zone}" => merge(settings, {
        pool = pool
        zone = zone
        size = floor(settings.count / length(settings.zones)) + (index < settings.count % length(settings.zones) ? 1 : 0)
      })
    }
  ]...)
}

data "aws_iam_policy_document" "cluster_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["eks.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "volumes_trust" {
  statement {
    actions = ["sts:AssumeRoleWithWebIdentity"]

    principals {
      type        = "Federated"
      identifiers = [aws_iam_openid_connect_provider.this.arn]
    }

    condition {
      test     = "StringEquals"
      variable = "${replace(aws_eks_cluster.this.identity[0].oidc[0].issuer, "https://", "")}:sub"
      values   = ["system:serviceaccount:kube-system:ebs-csi-controller-sa"]
    }

    condition {
      test     = "StringEquals"
      variable = "${replace(aws_eks_cluster.this.identity[0].oidc[0].issuer, "https://", "")}:aud"
      values   = ["sts.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "node_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "cluster" {
  name               = "${var.name}-cluster"
  assume_role_policy = data.aws_iam_policy_document.cluster_trust.json
}

resource "aws_iam_role_policy_attachment" "cluster" {
  role       = aws_iam_role.cluster.name
  policy_arn = "arn:aws:iam::aws:policy/AmazonEKSClusterPolicy"
}

resource "aws_iam_role" "node" {
  name               = "${var.name}-node"
  assume_role_policy = data.aws_iam_policy_document.node_trust.json
}

resource "aws_iam_role_policy_attachment" "node" {
  for_each   = toset(["AmazonEKSWorkerNodePolicy", "AmazonEKS_CNI_Policy", "AmazonEC2ContainerRegistryPullOnly"])
  role       = aws_iam_role.node.name
  policy_arn = "arn:aws:iam::aws:policy/${each.key}"
}

resource "aws_cloudwatch_log_group" "cluster" {
  name              = "/aws/eks/${var.name}/cluster"
  retention_in_days = 365
  kms_key_id        = var.kms_key_arn
}

resource "aws_eks_cluster" "this" {
  # checkov:skip=CKV_AWS_339: The file says which version it is; `landfall check` knows when each ends.
  # checkov:skip=CKV_AWS_39: The file says by `private-api` whether the API server has a public address.
  # checkov:skip=CKV_AWS_38: A public API server is open to `api_addresses` only, which is empty until somebody sets it.
  name                      = var.name
  version                   = var.kubernetes_version
  role_arn                  = aws_iam_role.cluster.arn
  enabled_cluster_log_types = ["api", "audit", "authenticator", "controllerManager", "scheduler"]
  deletion_protection       = true
  depends_on                = [aws_iam_role_policy_attachment.cluster, aws_cloudwatch_log_group.cluster]

  access_config {
    authentication_mode                         = "API"
    bootstrap_cluster_creator_admin_permissions = false
  }

  vpc_config {
    subnet_ids              = var.subnet_ids
    endpoint_private_access = true
    endpoint_public_access  = !var.private_api && length(var.api_addresses) > 0
    public_access_cidrs     = var.private_api ? null : var.api_addresses
  }

  encryption_config {
    resources = ["secrets"]

    provider {
      key_arn = var.kms_key_arn
    }
  }
}

# Whoever makes the cluster is no administrator by that.
resource "aws_eks_access_entry" "administrator" {
  for_each      = var.administrator_arns
  cluster_name  = aws_eks_cluster.this.name
  principal_arn = each.key
}

resource "aws_eks_access_policy_association" "administrator" {
  for_each      = aws_eks_access_entry.administrator
  cluster_name  = aws_eks_cluster.this.name
  principal_arn = each.value.principal_arn
  policy_arn    = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"

  access_scope {
    type = "cluster"
  }
}

resource "aws_eks_identity_provider_config" "this" {
  count        = var.identity == null ? 0 : 1
  cluster_name = aws_eks_cluster.this.name

  # Groups keep their names, by which the rendered role bindings know them.
  oidc {
    identity_provider_config_name = "people"
    issuer_url                    = var.identity.issuer_url
    client_id                     = var.identity.client_id
    groups_claim                  = var.identity.groups_claim
  }
}

resource "aws_launch_template" "node" {
  name_prefix = "${var.name}-"

  block_device_mappings {
    device_name = "/dev/xvda"

    ebs {
      volume_size = 100
      volume_type = "gp3"
      encrypted   = true
    }
  }

  # Pods cannot take over the identity of their node.
  metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }
}

resource "aws_eks_node_group" "this" {
  for_each        = local.groups
  cluster_name    = aws_eks_cluster.this.name
  node_group_name = each.key
  node_role_arn   = aws_iam_role.node.arn
  subnet_ids      = [var.subnet_ids_by_zone[each.value.zone]]
  instance_types  = [each.value.machine_type]

  labels = {
    "landfall.dev/pool" = each.value.pool
  }

  depends_on = [aws_iam_role_policy_attachment.node]

  launch_template {
    id      = aws_launch_template.node.id
    version = aws_launch_template.node.latest_version
  }

  scaling_config {
    desired_size = each.value.size
    min_size     = each.value.size
    max_size     = each.value.size + 1
  }

  update_config {
    max_unavailable = 1
  }

  dynamic "taint" {
    for_each = each.value.dedicated ? [each.value.pool] : []

    content {
      key    = "landfall.dev/pool"
      value  = taint.value
      effect = "NO_SCHEDULE"
    }
  }
}

resource "aws_iam_openid_connect_provider" "this" {
  url            = aws_eks_cluster.this.identity[0].oidc[0].issuer
  client_id_list = ["sts.amazonaws.com"]
}

resource "aws_iam_role" "volumes" {
  name               = "${var.name}-volumes"
  assume_role_policy = data.aws_iam_policy_document.volumes_trust.json
}

resource "aws_iam_role_policy_attachment" "volumes" {
  role       = aws_iam_role.volumes.name
  policy_arn = "arn:aws:iam::aws:policy/service-role/AmazonEBSCSIDriverPolicy"
}

# Without these nothing enforces network policies, makes volumes or feeds autoscalers.
resource "aws_eks_addon" "this" {
  for_each = {
    "vpc-cni"            = jsonencode({ enableNetworkPolicy = "true" })
    "kube-proxy"         = null
    "coredns"            = null
    "aws-ebs-csi-driver" = null
    "metrics-server"     = null
  }

  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = each.key
  configuration_values        = each.value
  service_account_role_arn    = each.key == "aws-ebs-csi-driver" ? aws_iam_role.volumes.arn : null
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "PRESERVE"
  depends_on                  = [aws_eks_node_group.this, aws_iam_role_policy_attachment.volumes]
}

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
